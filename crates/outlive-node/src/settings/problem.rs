//! What is wrong with a configuration file, where, and what to do about it.

use std::{fmt, ops::Range, path::Path, path::PathBuf};

/// One thing that is wrong with a configuration.
///
/// Shown over several lines, ready for a terminal:
///
/// ```text
/// /etc/outlive/a.toml:12:11: "10.0.0.300:443" is not an address with a port
///    12 | address = "10.0.0.300:443"
///       |           ^^^^^^^^^^^^^^^^
///   help: write it as 10.0.0.100:443 or [fd00::100]:443
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// Where in the file; `None` if it is not about a place in it.
    pub place: Option<Place>,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to do about it, likewise.
    pub help: String,
}

/// A place in a text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The whole line, without its end.
    pub text: String,
    /// How many characters from `column` on are meant, at least 1, not beyond the line.
    pub width: usize,
}

impl Place {
    /// The place of the bytes `span` in `source`. A span beyond the end means the end.
    pub fn of(source: &str, span: &Range<usize>) -> Self {
        let boundary = |mut at: usize| {
            at = at.min(source.len());
            while !source.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (boundary(span.start), boundary(span.end));
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let text = source[line_start..line_end].trim_end_matches('\r');
        let meant = &source[start..end.clamp(start, line_end)];
        Place {
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            text: text.to_owned(),
            width: meant.trim_end().chars().count().max(1),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.place {
            None => write!(f, "{file}: {}", self.message)?,
            Some(place) => {
                writeln!(f, "{file}:{}:{}: {}", place.line, place.column, self.message)?;
                // Tabs stay tabs, so that the marker stands below what it marks.
                let indent: String = (place.text.chars().take(place.column - 1))
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                writeln!(f, "{:>6} | {}", place.line, place.text)?;
                write!(f, "{:>6} | {indent}{}", "", "^".repeat(place.width))?;
            }
        }
        write!(f, "\n  help: {}", self.help)
    }
}

/// Collects problems while a file is gone through, so that all are told at once.
#[derive(Debug)]
pub struct Problems<'a> {
    file: &'a Path,
    source: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    /// None yet, of the file of that name and its text.
    pub fn new(file: &'a Path, source: &'a str) -> Self {
        Problems { file, source, found: Vec::new() }
    }

    /// Adds one about the bytes `span` of the file.
    pub fn at(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Some(Place::of(self.source, &span)), message.into(), help.into());
    }

    /// The same, unless just that has been said.
    pub fn once(&mut self, span: Range<usize>, message: String, help: String) {
        let place = Some(Place::of(self.source, &span));
        if !self.found.iter().any(|known| known.place == place && known.message == message) {
            self.push(place, message, help);
        }
    }

    /// Adds one about a place already known.
    pub fn place(
        &mut self,
        place: Option<Place>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(place, message.into(), help.into());
    }

    /// Adds one about the file as a whole.
    pub fn whole(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.push(None, message.into(), help.into());
    }

    fn push(&mut self, place: Option<Place>, message: String, help: String) {
        self.found.push(Problem { file: self.file.to_owned(), place, message, help });
    }

    /// Adds that the file is not TOML, or has an unknown, missing or mistyped key. `document` lists all keys.
    pub fn not_toml(&mut self, error: &toml::de::Error, document: &str) {
        let (message, help) = explain(error.message(), document);
        self.at(error.span().unwrap_or(0..0), message, help);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was found, in the order of the file.
    pub fn into_vec(mut self) -> Vec<Problem> {
        let position = |p: &Problem| p.place.as_ref().map(|place| (place.line, place.column));
        self.found.sort_by_key(position);
        self.found
    }
}

/// What the TOML parser says, as a sentence, and what to do about it.
fn explain(message: &str, document: &str) -> (String, String) {
    let message = message.trim_end().replace('`', "\"").replace('\n', ", ");
    let help = if message.starts_with("unknown field") {
        format!("correct the spelling or remove the key; {document} lists all of them")
    } else if message.starts_with("missing field") {
        format!("add the key; {document} says what it means")
    } else if message.starts_with("duplicate key") {
        "keep one of the two".to_owned()
    } else if message.starts_with("invalid type") {
        "write a value of the expected type; texts, addresses and times stand in quotes".to_owned()
    } else {
        "correct the TOML syntax: texts stand in quotes, tables begin with [name] or [[name]]"
            .to_owned()
    };
    (message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_stands_below_what_is_meant() {
        let source = "one\n\tkey = \"wärt\" # x\nthree";
        let start = source.find('"').unwrap();
        let place = Place::of(source, &(start..start + "\"wärt\"".len()));
        assert_eq!((place.line, place.column, place.width), (2, 8, 6));
        let problem = Problem {
            file: "f.toml".into(),
            place: Some(place),
            message: "no".into(),
            help: "yes".into(),
        };
        assert_eq!(
            problem.to_string(),
            "f.toml:2:8: no\n     2 | \tkey = \"wärt\" # x\n       | \t      ^^^^^^\n  help: yes"
        );
    }

    #[test]
    fn spans_at_and_beyond_the_end_are_places() {
        assert_eq!(Place::of("a\n", &(2..2)).line, 2);
        assert_eq!(Place::of("a\nb", &(9..12)).column, 2);
        assert_eq!(Place::of("", &(0..0)).width, 1);
        assert_eq!(Place::of("ab\ncd", &(0..5)).width, 2);
    }
}
