//! The demo on a whole terminal, twenty times a second.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyModifiers};
use ratatui::crossterm::terminal::{
    self, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};
use ratatui::{Frame, Terminal};

use super::board::{NodeView, Snapshot};
use super::graph::{DIM, DOWN, UP, per_second};
use super::probe::{self, NodeStatus};
use super::{Display, Wish, view};
use crate::scenario::course::Event;
use crate::traffic::Group;

const FRAME: Duration = Duration::from_millis(50);

/// How often the nodes are asked.
const ASKING: Duration = Duration::from_millis(100);

/// Less room than this is better used by lines.
const SMALLEST: (u16, u16) = (80, 24);

/// From here on there is room for longer words.
const WIDE: u16 = 96;

/// See the module. Dropping it gives the terminal back.
pub(super) struct Live {
    terminal: Terminal<CrosstermBackend<Box<dyn Write>>>,
    nodes: HashMap<String, Heard>,
    next_question: Duration,
}

/// What a node said last.
struct Heard {
    status: Option<NodeStatus>,
    at: Duration,
    /// Bytes per second through it.
    rate: f64,
}

impl Live {
    /// Takes the terminal; nothing if it cannot be taken, or is too small.
    pub(super) fn open(display: Display) -> Option<Self> {
        let (width, height) = terminal::size().ok()?;
        if width < SMALLEST.0 || height < SMALLEST.1 || enable_raw_mode().is_err() {
            return None;
        }
        let mut output: Box<dyn Write> = match display {
            Display::Output => Box::new(io::stdout()),
            Display::Error => Box::new(io::stderr()),
        };
        let taken = execute!(output, EnterAlternateScreen, cursor::Hide);
        let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(output)));
        if terminal.is_err() {
            // It was readable as a terminal a moment ago; nothing more can be done.
            let _ = disable_raw_mode();
        }
        let terminal = terminal.ok()?;
        Some(Self { terminal, nodes: HashMap::new(), next_question: Duration::ZERO })
    }

    /// Draws one frame, and waits for a key as long as it is shown.
    pub(super) fn show(&mut self, snapshot: &Snapshot) -> Wish {
        let now = snapshot.now();
        if now >= self.next_question {
            self.next_question = now + ASKING;
            self.ask_nodes(snapshot);
        }
        let nodes = &self.nodes;
        // A frame that cannot be drawn is followed by another one.
        let _ = self.terminal.draw(|frame| draw(frame, snapshot, nodes, now));
        wait_for_key()
    }

    fn ask_nodes(&mut self, snapshot: &Snapshot) {
        for node in &snapshot.nodes {
            let status = probe::ask(&node.admin_socket);
            let at = snapshot.now();
            let bytes =
                |status: &Option<NodeStatus>| status.as_ref().map_or(0, NodeStatus::carried);
            let rate = self.nodes.get(&node.name).map_or(0.0, |before| {
                let moved = bytes(&status).saturating_sub(bytes(&before.status)) as f64;
                let rate = moved / (at - before.at).as_secs_f64().max(1e-3);
                // Smoothed, so that it can be read.
                if rate == 0.0 { 0.0 } else { before.rate * 0.7 + rate * 0.3 }
            });
            self.nodes.insert(node.name.clone(), Heard { status, at, rate });
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = execute!(self.terminal.backend_mut(), LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

fn wait_for_key() -> Wish {
    match event::poll(FRAME) {
        Ok(true) => {}
        Ok(false) => return Wish::Continue,
        Err(_) => {
            // No keyboard: signals remain.
            std::thread::sleep(FRAME);
            return Wish::Continue;
        }
    }
    match event::read() {
        Ok(Input::Key(key)) => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let ends = key.code == KeyCode::Char('q')
                || (control && matches!(key.code, KeyCode::Char('c' | 'd')));
            if ends { Wish::End } else { Wish::Continue }
        }
        _ => Wish::Continue,
    }
}

fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, nodes: &HashMap<String, Heard>, now: Duration) {
    let bottom = if frame.area().height < 29 { 9 } else { 11 };
    let [title, top, graph, bottom, step] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Min(7),
        Constraint::Length(bottom),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, now);
    draw_top(frame, top, snapshot, nodes, now);
    let legend = Line::from(vec![
        Span::raw(" bytes that arrive: "),
        Span::styled("▲ download ", DOWN),
        Span::styled("▼ upload ", UP),
    ]);
    let block = panel().title(legend);
    frame.render_widget(&view::overview(snapshot, now), inside(block.inner(graph)));
    frame.render_widget(block, graph);
    match snapshot.faults.last() {
        Some(fault) => {
            let [left, right] =
                Layout::horizontal([Constraint::Fill(11), Constraint::Fill(9)]).areas(bottom);
            draw_timeline(frame, left, &snapshot.events);
            let gap = view::gap(snapshot, fault, now).as_millis();
            let title = format!(" {}: {gap} ms without a byte ", fault.what);
            let block = panel().title(title.bold());
            let zoom = view::zoom(snapshot, fault);
            frame.render_widget(&zoom, inside(block.inner(right)));
            frame.render_widget(block, right);
        }
        None => draw_timeline(frame, bottom, &snapshot.events),
    }
    draw_step(frame, step, snapshot, nodes);
}

fn panel() -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(DIM)
}

/// Without the last column, which looks better free.
fn inside(area: Rect) -> Rect {
    Rect { width: area.width.saturating_sub(1), ..area }
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, now: Duration) {
    let title = Line::from(vec![
        " Outlive ".bold().reversed(),
        "  clients ".into(),
        Span::styled("──▶", DIM),
        " 10.77.0.100, fd77::100 ".into(),
        Span::styled("──▶", DIM),
        " servers".into(),
    ]);
    frame.render_widget(title, area);
    let clock = Line::from(format!("{:.1} s ", now.as_secs_f64())).bold().right_aligned();
    frame.render_widget(clock, area);
}

fn draw_top(
    frame: &mut Frame<'_>,
    area: Rect,
    snapshot: &Snapshot,
    nodes: &HashMap<String, Heard>,
    now: Duration,
) {
    let node = if area.width < WIDE { 17 } else { 22 };
    let [a, b, connections] = Layout::horizontal([
        Constraint::Length(node),
        Constraint::Length(node),
        Constraint::Min(36),
    ])
    .areas(area);
    for (area, node) in [a, b].into_iter().zip(&snapshot.nodes) {
        draw_node(frame, area, node, nodes.get(&node.name));
    }
    if snapshot.nodes.is_empty() {
        frame.render_widget(panel().title(" node-a "), a);
        frame.render_widget(panel().title(" node-b "), b);
    }
    let sum = |count: fn(&Group) -> u64| -> u64 {
        snapshot.groups.iter().map(|group| count(group)).sum()
    };
    let open = sum(Group::open);
    let lost = sum(|group| group.failed.load(Relaxed));
    let colour = if lost == 0 { Color::Green } else { Color::Red };
    let title = Line::from(vec![
        format!(" connections: {open} open, ").into(),
        format!("{lost} lost ").bold().fg(colour),
    ]);
    let block = panel().title(title);
    let lines = connection_lines(snapshot, block.inner(connections).width, now);
    frame.render_widget(Paragraph::new(lines).block(block), connections);
}

fn draw_node(frame: &mut Frame<'_>, area: Rect, node: &NodeView, heard: Option<&Heard>) {
    let status = heard.and_then(|heard| heard.status.as_ref());
    let (state, colour) = match status {
        _ if node.killed => ("✖ KILLED", Color::Red),
        _ if node.cut => ("✖ CUT OFF", Color::Red),
        Some(status) if status.role == "active" => ("● ACTIVE", Color::Green),
        Some(status) if status.role == "standby" && status.survival.survives => {
            ("○ standby", Color::Blue)
        }
        Some(status) if status.role == "standby" => ("◌ catching up", Color::Yellow),
        _ => ("◌ joining", Color::Yellow),
    };
    let wide = ("carries ", "cable cut (link up)");
    let (carrying, cut) = if area.width < 22 { ("", "cable cut") } else { wide };
    let mut lines = vec![Line::from(state.bold().fg(colour))];
    let rate = heard.map_or(0.0, |heard| heard.rate);
    match status {
        _ if node.killed => lines.push("process gone".into()),
        Some(status) => {
            let sessions = status.core.sessions();
            lines.push(Line::from(format!("{sessions} sessions")));
            let carries =
                if rate > 0.0 { format!("{carrying}{}", per_second(rate)) } else { "idle".into() };
            lines.push(Line::from(carries));
        }
        None => {}
    }
    let cable = if node.cut { cut.fg(Color::Red) } else { "cable ok".into() };
    lines.push(cable.into());
    let title = format!(" {} ", node.name);
    let block = panel().border_style(Style::new().fg(colour)).title(title.bold());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn connection_lines(snapshot: &Snapshot, width: u16, now: Duration) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut idle = Vec::new();
    for group in &snapshot.groups {
        if view::is_transfer(group) {
            lines.push(transfer_line(group, snapshot.size, width, now));
        } else if group.label.starts_with("typing") {
            lines.push(typing_line(group, now));
        } else {
            let (_, version) = group.label.split_once(", ").unwrap_or_default();
            idle.push(format!("{} {version}", group.open()));
        }
    }
    if !idle.is_empty() {
        lines.push(Line::from(format!("{:<15}{} open", "idle", idle.join(" + "))));
    }
    lines
}

fn transfer_line(group: &Group, size: u64, width: u16, now: Duration) -> Line<'static> {
    let progress = view::progress(group, size, now);
    let colour = if group.label.starts_with("upload") { UP } else { DOWN };
    let bar = usize::from(width.saturating_sub(37)).clamp(4, 40);
    let full = (progress.part * bar as f64).round() as usize;
    let state = match progress.stalled {
        _ if progress.failed => "LOST".bold().fg(Color::Red),
        _ if progress.over => "complete".fg(Color::Green),
        Some(stalled) => {
            let text = format!("silent {} ms", stalled.as_millis());
            text.bold().fg(Color::Red)
        }
        None => per_second(progress.rate).into(),
    };
    Line::from(vec![
        format!("{:<15}", group.label).into(),
        "━".repeat(full).fg(colour),
        Span::styled("━".repeat(bar - full), DIM),
        format!(" {:>3.0} %  ", progress.part * 100.0).into(),
        state,
    ])
}

fn typing_line(group: &Group, now: Duration) -> Line<'static> {
    let (median, longest) = {
        let latency = group.latency.lock().expect("no holder panics");
        (latency.value_at_quantile(0.5) as f64 / 1e3, latency.max() as f64 / 1e3)
    };
    let mut spans = vec![
        format!("{:<15}", group.label).into(),
        format!("echo {median:.1} ms, worst {longest:.0} ms ").into(),
    ];
    let silence = view::silence(group, now).unwrap_or_default();
    if silence > Duration::from_millis(60) && group.open() > 0 {
        spans.push(format!("silent {} ms", silence.as_millis()).bold().fg(Color::Red));
    }
    Line::from(spans)
}

fn draw_timeline(frame: &mut Frame<'_>, area: Rect, events: &[Event]) {
    let block = panel().title(" what happened ");
    let inner = block.inner(area);
    let first = events.len().saturating_sub(usize::from(inner.height));
    let lines: Vec<Line<'_>> = events[first..].iter().map(event_line).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// An event with its time, coloured by what it means.
pub(super) fn event_line(event: &Event) -> Line<'static> {
    let what = if event.fault {
        event.what.clone().bold().fg(Color::Red)
    } else if event.what.contains("taken over") {
        event.what.clone().bold().fg(Color::Green)
    } else {
        event.what.clone().into()
    };
    Line::from(vec![Span::styled(format!("{:6.2} s ", event.at.as_secs_f64()), DIM), what])
}

fn draw_step(
    frame: &mut Frame<'_>,
    area: Rect,
    snapshot: &Snapshot,
    nodes: &HashMap<String, Heard>,
) {
    frame.render_widget(Line::from(format!(" {}", snapshot.step)), area);
    let healthy = snapshot.nodes.iter().filter(|node| !node.killed && !node.cut);
    let statuses: Vec<&NodeStatus> = healthy
        .filter_map(|node| nodes.get(&node.name).and_then(|heard| heard.status.as_ref()))
        .collect();
    let Some(active) = statuses.iter().find(|status| status.role == "active") else { return };
    let line = if active.survival.survives {
        "a failure now would be survived ".fg(Color::Green)
    } else {
        "a failure now would not be survived ".fg(Color::Yellow)
    };
    frame.render_widget(Line::from(line).right_aligned(), area);
}
