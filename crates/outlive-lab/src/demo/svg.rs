//! The throughput of a demo as a picture to keep: the whole of it, and a second around each fault.

use std::fmt::{self, Write};
use std::ops::Range;
use std::time::Duration;

use super::board::{Fault, Snapshot};
use super::graph::{Graph, per_second};
use super::view;
use crate::traffic::series::BUCKET;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 980.0;

/// Distinguishable with most kinds of colour vision.
const DOWN: &str = "#0072b2";
const UP: &str = "#e69f00";
const FAULT: &str = "#c00000";
const TAKEOVER: &str = "#007a50";
const TEXT: &str = "#444444";

/// The document; `outcome` is the sentence below the pictures.
pub(super) fn document(snapshot: &Snapshot, end: Duration, outcome: &str) -> String {
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = draw(&mut svg, snapshot, end, outcome);
    svg
}

fn draw(svg: &mut String, snapshot: &Snapshot, end: Duration, outcome: &str) -> fmt::Result {
    let height = if snapshot.faults.is_empty() { 420.0 } else { 700.0 };
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{height}" fill="white"/>"#
    )?;
    text(svg, (LEFT, 28.0), "start", TEXT, 17, "Outlive demo: bytes that arrived, over time")?;
    text(svg, (LEFT, 50.0), "start", DOWN, 13, "■ download, IPv4, upwards")?;
    text(svg, (LEFT + 200.0, 50.0), "start", UP, 13, "■ upload, IPv6, downwards")?;
    let overview = Graph { to: end, ..view::overview(snapshot, end) };
    let plot = Plot { graph: &overview, x: LEFT..RIGHT, y: 90.0..350.0, buckets: 2 };
    plot.draw(svg, &snapshot.faults)?;
    let middle = (LEFT + RIGHT) / 2.0;
    for (fault, x) in snapshot.faults.iter().zip([LEFT..middle - 20.0, middle + 60.0..RIGHT]) {
        let gap = view::gap(snapshot, fault, end).as_millis();
        let title = format!("{}: {gap} ms without a byte", fault.what);
        text(svg, (x.start, 405.0), "start", TEXT, 15, &title)?;
        let zoom = view::zoom(snapshot, fault);
        let plot = Plot { graph: &zoom, x, y: 440.0..620.0, buckets: 1 };
        plot.draw(svg, std::slice::from_ref(fault))?;
    }
    text(svg, (LEFT, height - 18.0), "start", TEXT, 15, outcome)?;
    writeln!(svg, "</svg>")
}

/// One mirrored diagram, and where it stands.
struct Plot<'a> {
    graph: &'a Graph,
    x: Range<f64>,
    y: Range<f64>,
    /// Buckets whose mean is one value.
    buckets: usize,
}

impl Plot<'_> {
    fn draw(&self, svg: &mut String, faults: &[Fault]) -> fmt::Result {
        let axis = (self.y.start + self.y.end) / 2.0;
        let edge = per_second(self.graph.most);
        for (y, label) in [(self.y.start, edge.as_str()), (axis, "0"), (self.y.end, &edge)] {
            let (start, end) = (self.x.start, self.x.end);
            writeln!(svg, r##"<path d="M{start:.1} {y:.1}H{end:.1}" stroke="#dddddd"/>"##)?;
            text(svg, (start - 6.0, y + 4.0), "end", TEXT, 12, label)?;
        }
        self.area(svg, &self.graph.down, DOWN, self.y.start - axis)?;
        self.area(svg, &self.graph.up, UP, self.y.end - axis)?;
        self.times(svg)?;
        let is_zoom = self.graph.zero.is_some();
        for fault in faults {
            // What a zoom is of, its title says.
            self.mark(svg, fault.at, FAULT, if is_zoom { "" } else { &fault.what })?;
            if let Some(takeover) = fault.takeover.filter(|_| is_zoom) {
                let label = format!("taken over after {} ms", takeover.as_millis());
                self.mark(svg, fault.at + takeover, TAKEOVER, &label)?;
            }
        }
        Ok(())
    }

    fn at(&self, time: Duration) -> f64 {
        let graph = self.graph;
        let part = (time.as_secs_f64() - graph.from.as_secs_f64())
            / (graph.to - graph.from).as_secs_f64().max(1e-9);
        self.x.start + part * (self.x.end - self.x.start)
    }

    /// A filled area between the axis and the values, which reach to `extent` at most.
    fn area(&self, svg: &mut String, series: &[u64], colour: &str, extent: f64) -> fmt::Result {
        let axis = (self.y.start + self.y.end) / 2.0;
        let index = |time: Duration| (time.as_nanos() / BUCKET.as_nanos()) as usize;
        let (first, last) = (index(self.graph.from), index(self.graph.to));
        write!(svg, r#"<path fill="{colour}" d="M{:.1} {axis:.1}"#, self.at(self.graph.from))?;
        for start in (first..last).step_by(self.buckets) {
            let sum: u64 = series.iter().skip(start).take(self.buckets).sum();
            let rate = sum as f64 / (BUCKET.as_secs_f64() * self.buckets as f64);
            let y = axis + extent * (rate / self.graph.most).min(1.0);
            let end = self.at(BUCKET * (start + self.buckets) as u32).min(self.x.end);
            write!(svg, "V{y:.1}H{end:.1}")?;
        }
        writeln!(svg, r#"V{axis:.1}Z"/>"#)
    }

    fn times(&self, svg: &mut String) -> fmt::Result {
        let graph = self.graph;
        let seconds = (graph.to - graph.from).as_secs_f64();
        let (zero, step) = match graph.zero {
            Some(zero) => (zero, Duration::from_millis(200)),
            None => (graph.from, Duration::from_secs(((seconds / 15.0).ceil() as u64).max(1))),
        };
        let times = (0..).map(|number| step * number).take_while(|&time| zero + time <= graph.to);
        for time in times {
            let label = match graph.zero {
                Some(_) => format!("{} ms", time.as_millis()),
                None => format!("{} s", time.as_secs()),
            };
            text(svg, (self.at(zero + time), self.y.end + 18.0), "middle", TEXT, 11, &label)?;
        }
        Ok(())
    }

    fn mark(&self, svg: &mut String, at: Duration, colour: &str, label: &str) -> fmt::Result {
        let (x, top, bottom) = (self.at(at), self.y.start - 8.0, self.y.end);
        writeln!(svg, r#"<path d="M{x:.1} {top:.1}V{bottom:.1}" stroke="{colour}"/>"#)?;
        text(svg, (x, top - 4.0), "start", colour, 12, label)
    }
}

fn text(
    svg: &mut String,
    (x, y): (f64, f64),
    anchor: &str,
    colour: &str,
    size: u32,
    text: &str,
) -> fmt::Result {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{text}</text>"#
    )
}
