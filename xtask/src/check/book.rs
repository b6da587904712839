//! Links in the book and in the other pages of the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Checks that each relative link leads to a file, and that the table of contents names every page
/// of the book.
///
/// # Errors
///
/// A list of all that is wrong.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut pages = Vec::new();
    pages_in(root, &mut pages, false)?;
    pages_in(&root.join("docs"), &mut pages, true)?;
    let mut wrong = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).map_err(Error::file("read", page))?;
        for link in links(&text) {
            if !page.parent().unwrap_or(root).join(&link).exists() {
                wrong.push(format!("{}: the link to {link} leads nowhere", shown(page, root)));
            }
        }
    }
    wrong.extend(unlisted(root, &pages)?);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::Found(wrong.join("\n")))
    }
}

/// Pages of the book that its table of contents does not name.
fn unlisted(root: &Path, pages: &[PathBuf]) -> Result<Vec<String>> {
    let Some(summary) = pages.iter().find(|page| page.ends_with("SUMMARY.md")) else {
        return Ok(Vec::new());
    };
    let dir = summary.parent().unwrap_or(root);
    let text = fs::read_to_string(summary).map_err(Error::file("read", summary))?;
    let named: BTreeSet<_> = links(&text).map(|link| dir.join(link)).collect();
    let missing = pages
        .iter()
        .filter(|page| page.starts_with(dir) && *page != summary && !named.contains(*page));
    Ok(missing
        .map(|page| format!("{}: SUMMARY.md does not name it", shown(page, root)))
        .collect())
}

/// Where the relative links of a page lead, without the part after `#`. Text in code is no link.
fn links(text: &str) -> impl Iterator<Item = String> {
    let mut fenced = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let targets = prose.flat_map(|line| {
        let outside_code: String = line.split('`').step_by(2).collect();
        outside_code
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next().map(str::to_owned))
            .collect::<Vec<_>>()
    });
    targets
        .map(|target| {
            target
                .split('#')
                .next()
                .unwrap_or_default()
                .trim()
                .trim_start_matches("./")
                .to_owned()
        })
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

fn pages_in(dir: &Path, pages: &mut Vec<PathBuf>, deep: bool) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let path = entry.map_err(Error::file("read", dir))?.path();
        if path.is_dir() && deep && !path.ends_with("docs/book") {
            pages_in(&path, pages, deep)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_in_prose_count() {
        let text = "[a](x.md#part) [b](https://h/) `[c](code.md)` [d](#here)\n```\n[e](fence.md)\n```\n[f](./y/z.md)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["x.md", "y/z.md"]);
    }

    #[test]
    fn broken_links_and_pages_nobody_names_are_listed() {
        let root = std::env::temp_dir().join(format!("xtask-book-{}", std::process::id()));
        fs::create_dir_all(root.join("docs/src")).unwrap();
        fs::write(root.join("docs/src/SUMMARY.md"), "- [One](one.md)\n- [Gone](gone.md)\n").unwrap();
        fs::write(root.join("docs/src/one.md"), "see [readme](../../README.md)").unwrap();
        fs::write(root.join("docs/src/lost.md"), "").unwrap();
        fs::write(root.join("README.md"), "").unwrap();
        let error = check(&root);
        fs::remove_dir_all(&root).unwrap();
        let text = error.unwrap_err().to_string();
        assert_eq!(
            text,
            "docs/src/SUMMARY.md: the link to gone.md leads nowhere\ndocs/src/lost.md: SUMMARY.md does not name it"
        );
    }
}
