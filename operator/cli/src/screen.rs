//! Standard output: lines that a command was asked for; on a terminal, a block of lines that is drawn again in place, and what fits in a row.
//!
//! Text from outside (a message of a business system) never moves the cursor: control characters are shown as spaces.

use crossterm::cursor::MoveUp;
use crossterm::terminal::{Clear, ClearType};
use crossterm::{execute, queue, terminal};
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::sync::OnceLock;

/// The width that is assumed where there is no terminal.
const WIDTH: usize = 120;

/// Why standard output takes no more.
static CLOSED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of what the command was asked for. Once standard output takes no more, the rest goes nowhere: what the command does is done all the same.
pub(crate) fn print(line: impl Display) {
    if CLOSED.get().is_none()
        && let Err(error) = writeln!(io::stdout(), "{line}")
    {
        let _ = CLOSED.set(error);
    }
}

/// Why standard output takes no more, if that was noticed. What prints without end may end then.
pub(crate) fn closed() -> Option<&'static io::Error> {
    CLOSED.get()
}

/// What was to be kept is not whole, and why. Who closed it has seen enough (`fairlead crds | head`).
pub(crate) fn lost() -> Option<&'static io::Error> {
    closed().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn size() -> (usize, usize) {
    terminal::size().map_or((WIDTH, 24), |(columns, rows)| (usize::from(columns).max(20), usize::from(rows).max(4)))
}

/// A block of lines at the foot of the output.
#[derive(Debug, Default)]
pub(crate) struct Block {
    drawn: u16,
}

impl Block {
    /// Draws these lines in place of the ones before, cut to the terminal's size.
    pub(crate) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let (width, height) = size();
        self.clear()?;
        let mut out = io::stdout().lock();
        for line in lines.iter().take(height - 1) {
            writeln!(out, "{}", cut(line, width - 1))?;
            self.drawn += 1;
        }
        out.flush()
    }

    /// Removes the block; what is printed next stands in its place.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            queue!(out, MoveUp(self.drawn))?;
        }
        execute!(out, Clear(ClearType::FromCursorDown))?;
        self.drawn = 0;
        Ok(())
    }
}

/// At most `width` characters, none of which moves the cursor.
pub(crate) fn cut(line: &str, width: usize) -> String {
    let mut plain: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.chars().count() > width {
        plain = plain.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
    plain
}

/// Rows in columns, each as wide as its widest cell. `right` names the columns with numbers.
pub(crate) fn columns(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().enumerate().map(|(column, cell)| match right.contains(&column) {
                true => format!("{cell:>width$}", width = widths[column]),
                false => format!("{cell:<width$}", width = widths[column]),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_system_says_moves_no_cursor_and_breaks_no_line() {
        assert_eq!(cut("a\u{1b}[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(cut("abcdef", 4), "abc…");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["NAME".to_owned(), "LAG".to_owned()], vec!["customers".to_owned(), "1s".to_owned()]];
        assert_eq!(columns(&rows, &[1]), ["NAME       LAG", "customers   1s"]);
    }
}
