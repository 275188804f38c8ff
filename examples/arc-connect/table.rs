//! [`Table`]: aligned columns for a person, on standard output.

use std::fmt;

use crate::common::printable;

/// Between two columns.
const GAP: &str = "  ";

/// Rows of texts, each column as wide as its widest.
pub struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub fn new(header: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned)],
        }
    }

    /// Adds a row. What a terminal would obey becomes a blank.
    pub fn row(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row.map(|cell| printable(&cell)));
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let widths = self.rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}{GAP}"));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "LONG", "END"]);
        table.row([
            "größer".to_owned(),
            "x".to_owned(),
            "a\u{1b}[2Jb".to_owned(),
        ]);
        table.row(["1".to_owned(), "2".to_owned(), String::new()]);
        assert_eq!(
            table.to_string(),
            "A       LONG  END\ngrößer  x     a [2Jb\n1       2\n"
        );
    }
}
