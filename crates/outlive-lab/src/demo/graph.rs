//! A picture of two streams in dots: what comes down grows upwards from the axis, what goes up
//! downwards, so that a gap in either is a hole.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::Widget;

use crate::traffic::series::BUCKET;

/// The download's colour.
pub(super) const DOWN: Color = Color::Cyan;
/// The upload's colour.
pub(super) const UP: Color = Color::Yellow;
/// Labels of axes, and other things that nobody needs to look at.
pub(super) const DIM: Style = Style::new().fg(Color::DarkGray);

/// Columns for the labels of the scale.
const GUTTER: u16 = 9;

/// See the module. Takes at least five rows: marks, a half, the axis, a half, times.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    /// Bytes in each bucket since the lab was built.
    pub(super) down: Vec<u64>,
    pub(super) up: Vec<u64>,
    /// The part that is shown.
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// Bytes per second at the upper and lower edge.
    pub(super) most: f64,
    /// Times are told in milliseconds since then, instead of seconds since the first one shown.
    pub(super) zero: Option<Duration>,
    /// Stand above the picture.
    pub(super) marks: Vec<Mark>,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) at: Duration,
    pub(super) label: String,
    pub(super) style: Style,
}

impl Widget for &Graph {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        if area.width < GUTTER + 10 || area.height < 5 {
            return;
        }
        let half = (area.height - 3) / 2;
        let plot = Rect {
            x: area.x + GUTTER,
            y: area.y + 1,
            width: area.width - GUTTER,
            height: 2 * half + 1,
        };
        let axis = plot.y + half;
        for x in plot.left()..plot.right() {
            buffer.set_string(x, axis, "─", DIM);
        }
        self.draw_scale(plot, axis, area.x, buffer);
        self.draw_times(plot, buffer);
        self.draw_half(plot, half, true, buffer);
        self.draw_half(plot, half, false, buffer);
        self.draw_marks(plot, axis, buffer);
    }
}

impl Graph {
    fn draw_half(&self, plot: Rect, half: u16, upper: bool, buffer: &mut Buffer) {
        let (series, colour) = if upper { (&self.down, DOWN) } else { (&self.up, UP) };
        let levels = usize::from(half) * 4;
        let heights: Vec<usize> = (0..usize::from(plot.width) * 2)
            .map(|dot| {
                let value = self.rate(series, dot, usize::from(plot.width) * 2);
                let height = (value / self.most * levels as f64).round() as usize;
                // Little is not nothing.
                height.max(usize::from(value > 0.0)).min(levels)
            })
            .collect();
        for row in 0..half {
            // Rows count from the axis.
            let y = if upper { plot.y + half - 1 - row } else { plot.y + half + 1 + row };
            for (x, pair) in (plot.x..).zip(heights.chunks_exact(2)) {
                let below = usize::from(row) * 4;
                let dots = [pair[0], pair[1]].map(|height| height.saturating_sub(below).min(4));
                if let Some(symbol) = braille(dots, upper) {
                    buffer[(x, y)].set_char(symbol).set_style(Style::new().fg(colour));
                }
            }
        }
    }

    /// Bytes per second in one of `dots` columns.
    fn rate(&self, series: &[u64], dot: usize, dots: usize) -> f64 {
        let bucket = |dot: usize| {
            let at = self.from + (self.to - self.from).mul_f64(dot as f64 / dots as f64);
            (at.as_nanos() / BUCKET.as_nanos()) as usize
        };
        let (start, end) = (bucket(dot), bucket(dot + 1).max(bucket(dot) + 1));
        let sum: u64 = series.iter().take(end).skip(start).sum();
        sum as f64 / ((end - start) as f64 * BUCKET.as_secs_f64())
    }

    fn column(&self, plot: Rect, at: Duration) -> Option<u16> {
        let part = (at.as_secs_f64() - self.from.as_secs_f64())
            / (self.to - self.from).as_secs_f64().max(1e-9);
        (0.0..1.0).contains(&part).then(|| plot.x + (part * f64::from(plot.width)) as u16)
    }

    fn draw_scale(&self, plot: Rect, axis: u16, left: u16, buffer: &mut Buffer) {
        let edge = per_second(self.most);
        for (y, text) in [(plot.y, edge.as_str()), (axis, "0"), (plot.bottom() - 1, &edge)] {
            let width = usize::from(GUTTER) - 1;
            buffer.set_string(left, y, format!("{text:>width$}"), DIM);
        }
    }

    fn draw_times(&self, plot: Rect, buffer: &mut Buffer) {
        let y = plot.bottom();
        let (zero, step) = match self.zero {
            Some(zero) => (zero, Duration::from_millis(200)),
            None => {
                let seconds = (self.to - self.from).as_secs_f64();
                (self.from, Duration::from_secs(((seconds / 12.0).ceil() as u64).max(1)))
            }
        };
        let mut free = plot.x;
        for number in 0..1000 {
            let at = zero + step * number;
            if at > self.to {
                break;
            }
            let text = match self.zero {
                Some(_) => format!("{} ms", (step * number).as_millis()),
                None => format!("{} s", (step * number).as_secs()),
            };
            let width = text.len() as u16;
            if let Some(x) = self.column(plot, at)
                && x >= free
                && x + width <= plot.right()
            {
                buffer.set_string(x, y, text, DIM);
                free = x + width + 1;
            }
        }
    }

    fn draw_marks(&self, plot: Rect, axis: u16, buffer: &mut Buffer) {
        let y = plot.y - 1;
        let mut free = plot.x;
        for mark in &self.marks {
            let Some(x) = self.column(plot, mark.at) else { continue };
            buffer.set_string(x, axis, "┼", mark.style);
            let text = format!("▼ {}", mark.label).trim_end().to_owned();
            let width = text.chars().count() as u16;
            if x >= free && x + width <= plot.right() {
                buffer.set_string(x, y, &text, mark.style.add_modifier(Modifier::BOLD));
                free = x + width + 1;
            } else if x >= free {
                buffer.set_string(x, y, "▼", mark.style.add_modifier(Modifier::BOLD));
                free = x + 2;
            }
        }
    }
}

/// Two columns of up to four dots, from the bottom or from the top.
fn braille(dots: [usize; 2], from_bottom: bool) -> Option<char> {
    const COLUMNS: [[u32; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    let mut bits = 0;
    for (column, height) in COLUMNS.iter().zip(dots) {
        let skipped = if from_bottom { 4 - height } else { 0 };
        bits |= column.iter().skip(skipped).take(height).sum::<u32>();
    }
    (bits != 0).then(|| char::from_u32(0x2800 + bits)).flatten()
}

/// A rate for people: `53.7 MB/s`.
pub(super) fn per_second(bytes: f64) -> String {
    let (value, unit) = match bytes {
        bytes if bytes >= 1e9 => (bytes / 1e9, "GB/s"),
        bytes if bytes >= 1e6 => (bytes / 1e6, "MB/s"),
        bytes => (bytes / 1e3, "kB/s"),
    };
    if value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_a_hole_in_its_half_only() {
        // A second each: data, nothing, data; the upload never stops.
        let down = [vec![100; 100], vec![0; 100], vec![100; 100]].concat();
        let graph = Graph {
            down,
            up: vec![100; 300],
            from: Duration::ZERO,
            to: Duration::from_secs(3),
            most: 10_000.0,
            zero: None,
            marks: vec![Mark {
                at: Duration::from_secs(1),
                label: "gap".into(),
                style: Style::new(),
            }],
        };
        let area = Rect::new(0, 0, GUTTER + 30, 5);
        let mut buffer = Buffer::empty(area);
        graph.render(area, &mut buffer);
        let row = |y: u16| -> String {
            (GUTTER..area.width).map(|x| buffer[(x, y)].symbol().to_owned()).collect()
        };
        let (full, hole) = ("⣿".repeat(10), " ".repeat(10));
        assert_eq!(row(0), format!("{hole}▼ gap     {hole}"));
        assert_eq!(row(1), format!("{full}{hole}{full}"));
        assert_eq!(row(3), full.repeat(3));
        assert_eq!(row(4).trim_end(), "0 s       1 s       2 s");
    }
}
