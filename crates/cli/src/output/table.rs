//! Tables of text.

/// The content of an empty cell.
const EMPTY: &str = "n/a";
const GAP: usize = 4;

/// Rows below an underlined header.
pub(crate) fn with_header(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut all = vec![header.iter().map(|name| (*name).to_owned()).collect()];
    all.push(header.iter().map(|name| "-".repeat(name.chars().count())).collect());
    all.extend(rows.iter().cloned());
    columns(&all)
}

/// Rows with aligned columns; the last column is not padded.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let cells: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(|cell| filled(cell)).collect()).collect();
    let count = cells.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|at| cells.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let lines = cells.iter().map(|row| {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if at + 1 < row.len() {
                line.push_str(&" ".repeat(widths[at] - cell.chars().count() + GAP));
            }
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A title between equals signs, as wide as the text below it.
pub(crate) fn heading(title: &str, width: usize) -> String {
    let signs = match width.saturating_sub(title.chars().count() + 2) {
        0 => 2,
        room => room.div_ceil(2),
    };
    let signs = "=".repeat(signs);
    format!("{signs} {title} {signs}")
}

fn filled(cell: &str) -> &str {
    let cell = cell.trim();
    if cell.is_empty() { EMPTY } else { cell }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_na() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long é".to_owned(), String::new()]];
        assert_eq!(
            with_header(&["Key", "Value"], &rows),
            "Key       Value\n---       -----\na         1\nlong é    n/a"
        );
    }

    #[test]
    fn a_heading_is_centred() {
        assert_eq!(heading("Secret Path", 13), "== Secret Path ==");
        assert_eq!(heading("Metadata Path", 17), "= Metadata Path =");
        assert_eq!(heading("Metadata", 24), "======= Metadata =======");
        assert_eq!(heading("Version 1", 22), "====== Version 1 ======");
        assert_eq!(heading("Data", 10), "== Data ==");
    }
}
