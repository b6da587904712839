//! `chiton doctor --store`: is the store of images what it should be?

use std::error::Error;

/// Prints the report; true if nothing is wrong.
pub(crate) fn run() -> Result<bool, Box<dyn Error>> {
    let store = crate::image::open()?;
    let report = store.verify()?;
    let mut text: String = report
        .problems
        .iter()
        .map(|problem| format!("no  {problem}\n"))
        .collect();
    let state = if report.problems.is_empty() { "ok " } else { "no " };
    text += &format!(
        "{state} {}: {} images, {} blobs, {} unpacked layers",
        store.root().display(),
        report.images,
        report.blobs,
        report.layers
    );
    text += &match report.problems.len() {
        0 => "\n".to_owned(),
        count => format!("; {count} problems: import or pull what is damaged again\n"),
    };
    crate::say(&text)?;
    Ok(report.problems.is_empty())
}
