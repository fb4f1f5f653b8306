//! The verdict for a reader: pictures, timeline, who waited how long, and what it comes to.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::board::{Fault, Snapshot};
use super::graph::{DIM, DOWN, Graph, UP};
use super::verdict::Verdict;
use super::{ansi, live, view};
use crate::report::Report;

const OVERVIEW_HEIGHT: u16 = 11;
const ZOOM_HEIGHT: u16 = 9;

/// Everything, `width` columns wide.
pub(super) fn text(
    verdict: &Verdict,
    report: &Report,
    snapshot: &Snapshot,
    width: u16,
    colour: bool,
) -> String {
    let mut page = Page::new(width);
    if snapshot.begun.is_some() {
        page.pictures(snapshot, verdict.ended());
    }
    page.timeline(verdict);
    page.waits(&verdict.faults);
    page.verdict(verdict, report);
    ansi::text(&page.buffer, colour)
}

/// Rows from top to bottom; as many as are needed.
struct Page {
    buffer: Buffer,
}

impl Page {
    fn new(width: u16) -> Self {
        Self { buffer: Buffer::empty(Rect::new(0, 0, width, 0)) }
    }

    /// Adds rows at the end.
    fn grow(&mut self, height: u16) -> Rect {
        let area = self.buffer.area;
        self.buffer.resize(Rect::new(0, 0, area.width, area.height + height));
        Rect::new(0, area.height, area.width, height)
    }

    fn line<'a>(&mut self, line: impl Into<Line<'a>>) {
        let area = self.grow(1);
        line.into().render(area, &mut self.buffer);
    }

    fn heading(&mut self, heading: &str) {
        self.line("");
        self.line(heading.to_owned().bold());
    }

    fn pictures(&mut self, snapshot: &Snapshot, ended: Duration) {
        self.line("");
        self.line(Line::from(vec![
            "Bytes that arrived  ".bold(),
            Span::styled("▲ download, IPv4  ", DOWN),
            Span::styled("▼ upload, IPv6", UP),
        ]));
        let area = self.grow(OVERVIEW_HEIGHT);
        let overview = Graph { to: ended, ..view::overview(snapshot, ended) };
        (&overview).render(area, &mut self.buffer);
        if snapshot.faults.is_empty() {
            return;
        }
        self.line("");
        let titles = self.grow(1);
        let area = self.grow(ZOOM_HEIGHT);
        let part = area.width / 2;
        for (fault, x) in snapshot.faults.iter().zip([0, part]) {
            let gap = view::gap(snapshot, fault, ended).as_millis();
            let title = Line::from(vec![
                fault.what.clone().bold().fg(Color::Red),
                format!(": {gap} ms without a byte").into(),
            ]);
            let width = part.saturating_sub(2);
            title.render(Rect { x, width, ..titles }, &mut self.buffer);
            let zoom = view::zoom(snapshot, fault);
            (&zoom).render(Rect { x, width, ..area }, &mut self.buffer);
        }
    }

    fn timeline(&mut self, verdict: &Verdict) {
        self.heading("What happened");
        for event in &verdict.events {
            self.line(live::event_line(event));
        }
    }

    /// A row for each kind of connection, a column for each fault.
    fn waits(&mut self, faults: &[Fault]) {
        let Some(first) = faults.first().filter(|fault| !fault.stalls.is_empty()) else { return };
        self.heading("How long the connections waited at most");
        let mut head = vec![Span::raw(format!("  {:<24}", ""))];
        head.extend(faults.iter().map(|fault| format!("{:>24}", fault.what).fg(Color::Red)));
        self.line(Line::from(head));
        for stall in &first.stalls {
            let label = match stall.connections {
                1 => stall.group.clone(),
                number => format!("{number} {}", stall.group),
            };
            let mut row = format!("  {label:<24}");
            for fault in faults {
                let longest = fault.stalls.iter().find(|other| other.group == stall.group);
                row += &match longest.map_or(0.0, |stall| stall.longest_ms) {
                    0.0 => format!("{:>24}", "had nothing to wait for"),
                    longest => format!("{:>24}", format!("{longest:.0} ms")),
                };
            }
            self.line(row);
        }
        let mut row = format!("  {:<24}", "other node active after");
        for fault in faults {
            let takeover = fault.takeover.map(|takeover| format!("{} ms", takeover.as_millis()));
            row += &format!("{:>24}", takeover.unwrap_or_else(|| "never".to_owned()));
        }
        self.line(Line::styled(row, DIM));
    }

    fn verdict(&mut self, verdict: &Verdict, report: &Report) {
        self.heading("Verdict");
        let good = |good: bool| Style::new().fg(if good { Color::Green } else { Color::Red });
        let lost = report.connections_lost;
        self.line(Line::styled(
            format!("  {lost} of {} connections lost", report.connections),
            good(lost == 0).bold(),
        ));
        let wrong = report.bytes_wrong;
        self.line(Line::styled(
            format!("  {wrong} of {} bytes wrong", grouped(report.bytes_verified)),
            good(wrong == 0).bold(),
        ));
        let survived = verdict.faults.iter().filter(|fault| fault.survived).count();
        let faults: Vec<&str> = verdict.faults.iter().map(|fault| fault.what.as_str()).collect();
        self.line(Line::styled(
            format!("  {survived} of 2 failures survived: {}", faults.join("; ")),
            good(survived == 2).bold(),
        ));
        for lost in &report.lost {
            let (at, side) = (lost.at.as_secs_f64(), format!("{:?}", lost.side).to_lowercase());
            let text =
                format!("  lost: {}, {} at {at:.3} s at the {side}", lost.group, lost.reason);
            self.line(text.fg(Color::Red));
        }
        for problem in &report.problems {
            self.line(format!("  wrong: {problem}").fg(Color::Red));
        }
        self.line("");
    }
}

/// With commas: 2,147,483,648.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [7, 999, 1000, 2_147_483_648].map(grouped);
        assert_eq!(texts, ["7", "999", "1,000", "2,147,483,648"]);
    }
}
