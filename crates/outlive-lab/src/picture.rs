//! Lines over time as SVG: throughput, with marks where something happened.

use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 1000.0;
const PLOT_HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const MARK_LINE_HEIGHT: f64 = 16.0;

/// Distinguishable with most kinds of colour vision.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A diagram.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Stands above it.
    pub title: String,
    /// Of the values.
    pub unit: String,
    /// What is drawn.
    pub lines: Vec<Line>,
    /// When something happened.
    pub marks: Vec<Mark>,
}

/// One line of a diagram.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name in the legend.
    pub label: String,
    /// Time between two values; the first one is at time zero.
    pub step: Duration,
    /// Its values, not negative.
    pub values: Vec<f64>,
}

/// A vertical line with a number, explained below the diagram.
#[derive(Debug, Clone)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// What.
    pub label: String,
    /// Whether it is drawn so that nobody overlooks it.
    pub strong: bool,
}

impl Picture {
    /// The diagram as an SVG document.
    pub fn to_svg(&self) -> String {
        let scale = Scale::of(self);
        let height = TOP + PLOT_HEIGHT + 50.0 + MARK_LINE_HEIGHT * (self.marks.len() + 1) as f64;
        let mut svg = String::new();
        // Writing to a string cannot fail; `draw` returns what the formatter says.
        let _ = self.draw(&mut svg, &scale, height);
        svg
    }

    fn draw(&self, svg: &mut String, scale: &Scale, height: f64) -> std::fmt::Result {
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(svg, r#"<rect width="{WIDTH}" height="{height}" fill="white"/>"#)?;
        writeln!(svg, r#"<text x="{LEFT}" y="20" font-size="15">{}</text>"#, escape(&self.title))?;
        self.draw_axes(svg, scale)?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            draw_line(svg, scale, line, colour)?;
        }
        self.draw_marks(svg, scale)?;
        self.draw_legend(svg)?;
        writeln!(svg, "</svg>")
    }

    fn draw_axes(&self, svg: &mut String, scale: &Scale) -> std::fmt::Result {
        let (bottom, right) = (TOP + PLOT_HEIGHT, WIDTH - 20.0);
        for part in 0..=4 {
            let value = scale.most * f64::from(part) / 4.0;
            let y = scale.y(value);
            let text = human(value, &self.unit);
            writeln!(
                svg,
                r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{text}</text>"##,
                LEFT - 6.0,
                y + 4.0
            )?;
        }
        let seconds = (scale.end.as_secs_f64().ceil() as u64).max(1);
        let every = seconds.div_ceil(15).max(1);
        for second in (0..=seconds).step_by(every as usize) {
            let at = Duration::from_secs(second);
            if at > scale.end {
                break;
            }
            let x = scale.x(at);
            writeln!(
                svg,
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{second} s</text>"#,
                bottom + 16.0
            )?;
        }
        Ok(())
    }

    fn draw_marks(&self, svg: &mut String, scale: &Scale) -> std::fmt::Result {
        let bottom = TOP + PLOT_HEIGHT;
        let mut number_x = 0.0;
        for (number, mark) in (1..).zip(&self.marks) {
            let x = scale.x(mark.at);
            // Numbers of marks that are close together stand side by side.
            number_x = f64::max(x, number_x + 14.0);
            let (colour, dash) = if mark.strong { ("#c00", "none") } else { ("#666", "4 4") };
            writeln!(
                svg,
                r#"<path d="M{x:.1} {TOP}V{bottom}" stroke="{colour}" stroke-dasharray="{dash}"/><text x="{number_x:.1}" y="{:.1}" fill="{colour}" text-anchor="middle">{number}</text>"#,
                TOP - 4.0
            )?;
            let y = bottom + 50.0 + MARK_LINE_HEIGHT * f64::from(number);
            writeln!(
                svg,
                r#"<text x="{LEFT}" y="{y:.1}" fill="{colour}">{number}: {:.3} s, {}</text>"#,
                mark.at.as_secs_f64(),
                escape(&mark.label)
            )?;
        }
        Ok(())
    }

    fn draw_legend(&self, svg: &mut String) -> std::fmt::Result {
        let y = TOP + PLOT_HEIGHT + 36.0;
        let mut x = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let text = escape(&line.label);
            writeln!(svg, r#"<text x="{x:.1}" y="{y}" fill="{colour}">■ {text}</text>"#)?;
            x += 30.0 + 7.0 * line.label.chars().count() as f64;
        }
        Ok(())
    }
}

/// Where times and values are on the paper.
struct Scale {
    end: Duration,
    most: f64,
}

impl Scale {
    fn of(picture: &Picture) -> Self {
        let line_end =
            |line: &Line| line.step * u32::try_from(line.values.len()).unwrap_or(u32::MAX);
        let ends = picture.lines.iter().map(line_end);
        let end = ends.chain(picture.marks.iter().map(|mark| mark.at)).max().unwrap_or_default();
        let mut values: Vec<f64> =
            picture.lines.iter().flat_map(|line| line.values.iter().copied()).collect();
        values.sort_by(f64::total_cmp);
        // One burst, such as after a pause, must not press everything else to the ground: the
        // highest hundredth of the values may be cut off at the top.
        let usual = values.get(values.len() * 99 / 100).copied().unwrap_or_default();
        let most = values.last().copied().unwrap_or_default().min(usual * 1.5);
        let end = end.max(Duration::from_millis(1));
        Self { end, most: round_up(most) }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (WIDTH - 20.0 - LEFT) * at.as_secs_f64() / self.end.as_secs_f64()
    }

    fn y(&self, value: f64) -> f64 {
        TOP + PLOT_HEIGHT * (1.0 - (value / self.most).min(1.0))
    }
}

/// The next value of which a quarter is easily read.
fn round_up(most: f64) -> f64 {
    let power = if most > 0.0 { 10f64.powf(most.log10().floor()) } else { 1.0 };
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0];
    let step = steps.into_iter().find(|step| step * power >= most).unwrap_or(10.0);
    step * power
}

/// A polyline; in a row of equal values only the ends are drawn.
fn draw_line(svg: &mut String, scale: &Scale, line: &Line, colour: &str) -> std::fmt::Result {
    write!(svg, r#"<path fill="none" stroke="{colour}" d=""#)?;
    let values = &line.values;
    let mut command = 'M';
    for (index, &value) in values.iter().enumerate() {
        let inside = index > 0 && index + 1 < values.len();
        if inside && values[index - 1] == value && values[index + 1] == value {
            continue;
        }
        let at = line.step * u32::try_from(index).unwrap_or(u32::MAX);
        write!(svg, "{command}{:.1} {:.1}", scale.x(at), scale.y(value))?;
        command = 'L';
    }
    writeln!(svg, r#""/>"#)
}

fn human(value: f64, unit: &str) -> String {
    let prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match prefixes.iter().find(|(factor, _)| value >= *factor) {
        Some((factor, prefix)) => {
            let value = value / factor;
            let digits = usize::from(value < 100.0);
            format!("{value:.digits$} {prefix}{unit}")
        }
        None => format!("{value:.0}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_marks_are_drawn_to_scale() {
        let step = Duration::from_millis(500);
        let line = Line { label: "a<b".into(), step, values: vec![0.0, 2e9, 2e9, 2e9, 0.0] };
        let at = Duration::from_millis(1250);
        let mark = Mark { at, label: "cut & dried".into(), strong: true };
        let picture = Picture {
            title: "t".into(),
            unit: "bit/s".into(),
            lines: vec![line],
            marks: vec![mark],
        };
        let svg = picture.to_svg();
        // The picture ends at 2.5 s; the middle value of the plateau is left out.
        assert!(svg.contains("M70.0 360.0L252.0 40.0L616.0 40.0L798.0 360.0"), "{svg}");
        assert!(svg.contains("M525.0 40V360"), "the mark is at half of the time");
        assert!(
            svg.contains("2.0 Gbit/s") && svg.contains("a&lt;b") && svg.contains("cut &amp; dried")
        );
    }

    #[test]
    fn an_empty_picture_is_a_picture() {
        let picture =
            Picture { title: String::new(), unit: "x".into(), lines: vec![], marks: vec![] };
        assert!(picture.to_svg().ends_with("</svg>\n"));
    }
}
