//! Turns drawn cells into text for a terminal that scrolls, with its colours or without.

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// The text of all rows; spaces at the ends of lines are left out.
pub(super) fn text(buffer: &Buffer, colour: bool) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let mut line = String::new();
        let mut current = String::new();
        let visible = |x: &u16| buffer[(*x, y)].symbol() != " ";
        let end = (area.left()..area.right()).rev().find(visible).map_or(area.left(), |x| x + 1);
        for x in area.left()..end {
            let cell = &buffer[(x, y)];
            let wanted = if colour { codes(cell) } else { String::new() };
            if wanted != current {
                line += "\x1b[0m";
                line += &wanted;
                current = wanted;
            }
            line += cell.symbol();
        }
        if !current.is_empty() {
            line += "\x1b[0m";
        }
        text += &line;
        text.push('\n');
    }
    text
}

/// The escape sequence for the style of a cell, after a reset; empty if there is nothing to say.
fn codes(cell: &Cell) -> String {
    let mut codes = Vec::new();
    if cell.modifier.contains(Modifier::BOLD) {
        codes.push("1");
    }
    let colour = match cell.fg {
        Color::Red => "31",
        Color::Green => "32",
        Color::Yellow => "33",
        Color::Blue => "34",
        Color::Magenta => "35",
        Color::Cyan => "36",
        Color::DarkGray => "90",
        _ => "",
    };
    codes.extend((!colour.is_empty()).then_some(colour));
    if codes.is_empty() { String::new() } else { format!("\x1b[{}m", codes.join(";")) }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn colours_change_only_where_they_change() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 2));
        buffer.set_string(0, 0, "ab", Style::new().fg(Color::Red));
        buffer.set_string(2, 0, "c", Style::new());
        assert_eq!(text(&buffer, true), "\x1b[0m\x1b[31mab\x1b[0mc\n\n");
        assert_eq!(text(&buffer, false), "abc\n\n");
    }
}
