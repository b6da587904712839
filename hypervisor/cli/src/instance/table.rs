//! Columns of text.

/// The rows as lines; each column is as wide as its widest cell, and two spaces apart from the next.
pub(super) fn lines(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(header.get(column).map(|cell| cell.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let rows = [vec!["ä".into(), "x".into()], vec!["long".into(), String::new()]];
        assert_eq!(lines(&["A", "BB"], &rows), "A     BB\nä     x\nlong\n");
    }
}
