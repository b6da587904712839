//! The page of a report in a real browser: it asks for nothing, shows everything in light and dark, on wide
//! and on narrow windows, and prints.
//!
//! Debian's `chromium-headless-shell` is enough. Without a browser these tests say so and pass over, and fail where
//! `CI` is set. `CHITON_SHOW=FOLDER` keeps what the browser draws.

// Clippy knows tests by an attribute that what helps them does not have.
#![allow(clippy::unwrap_used)]

mod chromium;
mod sample;

use std::path::PathBuf;

use base64::Engine;
use chiton_bench::html::{Column, page};
use chromium::Browser;
use serde_json::{Value, json};

/// A browser; if there is none, says why the test passes over.
fn browser() -> Option<Browser> {
    let Some(program) = chromium::find() else {
        println!("skipped: there is no Chromium (Debian: apt-get install chromium-headless-shell)");
        let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1");
        assert!(!strict, "there is no Chromium");
        return None;
    };
    Some(Browser::start(&program))
}

/// The pages that are looked at: one run, two runs, phases, many instances.
fn pages() -> [(&'static str, String); 4] {
    let (one, other, start, density) = (
        sample::exits(1.0),
        sample::exits(1.3),
        sample::start(),
        sample::density(),
    );
    [
        ("exits", page(&[Column::new("exits", &one)])),
        (
            "compared",
            page(&[Column::new("before.json", &one), Column::new("after.json", &other)]),
        ),
        ("start", page(&[Column::new("start", &start)])),
        ("density", page(&[Column::new("density", &density)])),
    ]
}

/// Where pictures go for a person to look at, if anywhere.
fn shown() -> Option<PathBuf> {
    std::env::var_os("CHITON_SHOW").map(PathBuf::from)
}

/// What the browser sends as text.
fn decoded(encoded: &Value) -> Vec<u8> {
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(encoded["data"].as_str().unwrap()).unwrap()
}

/// Every text that is shown, its contrast to what is behind it (WCAG 2.2, 1.4.3), and whether it is cut off.
const TEXTS: &str = r"
(() => {
  const channel = value => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
  // A colour is what a pixel painted with it becomes: whatever way it is written.
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const parse = text => {
    if (!known.has(text)) {
      canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
      known.set(text, [...canvas.getImageData(0, 0, 1, 1).data]);
    }
    return known.get(text);
  };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255, 255];
  };
  const worst = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest('.unseen, legend, title')) continue;
    const box = element.getBoundingClientRect();
    if (box.width === 0) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [one, other] = [light(ink), light(behind(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    count += 1;
    if (contrast < 4.5) worst.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return { count, worst };
})()
";

#[test]
fn a_page_asks_for_nothing_complains_of_nothing_and_is_readable_in_light_and_dark() {
    let Some(mut browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in pages() {
        let file = folder.path().join(format!("{name}.html"));
        std::fs::write(&file, text).unwrap();
        browser.open(&file);
        for (dark, width) in [(false, 1280), (true, 1280), (false, 390), (true, 390)] {
            browser.look(dark, width);
            let what = format!("{name}, {}, {width} wide", if dark { "dark" } else { "light" });

            if let Some(folder) = shown() {
                let shot = browser.ask("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
                let scheme = if dark { "dark" } else { "light" };
                std::fs::write(folder.join(format!("{name}-{scheme}-{width}.png")), decoded(&shot)).unwrap();
            }

            let paper = browser.evaluate("getComputedStyle(document.body).backgroundColor");
            let expected = if dark { "rgb(21, 23, 26)" } else { "rgb(253, 252, 250)" };
            assert_eq!(paper, expected, "{what}");
            let texts = browser.evaluate(TEXTS);
            assert!(texts["count"].as_u64().unwrap() > 100, "{what}: {texts}");
            assert_eq!(texts["worst"], json!([]), "{what}: contrast below 4.5");
            // Wide tables scroll in their own boxes, which the keyboard reaches; the page does not.
            let beyond =
                browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(beyond, 0, "{what}: the page is wider than the window");
            let unreachable =
                "[...document.querySelectorAll('.scroll')].filter(box => box.tabIndex !== 0 || !box.ariaLabel).length";
            assert_eq!(browser.evaluate(unreachable), 0, "{what}");
        }
        let requests = browser.told("Network.requestWillBeSent");
        let asked: Vec<_> = requests
            .iter()
            .filter_map(|request| request["request"]["url"].as_str())
            .collect();
        let foreign: Vec<_> = asked
            .iter()
            .filter(|url| !url.starts_with("file://") && !url.starts_with("data:"))
            .collect();
        assert!(foreign.is_empty() && asked.len() <= 2, "{name}: {asked:?}");
        for complaint in ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"] {
            assert!(
                browser.told(complaint).is_empty(),
                "{name}: {:?}",
                browser.told(complaint)
            );
        }
    }
}

#[test]
fn every_part_is_there_with_a_name_for_who_cannot_see_it() {
    let Some(mut browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let parts = [
        (
            "exits",
            vec![
                "At a glance",
                "instructions",
                "By cause",
                "Not measured",
                "Where",
                "How to read this",
            ],
        ),
        ("compared", vec!["What changed", "At a glance", "devices", "Where"]),
        ("start", vec!["Phase by phase", "jailed", "from a snapshot", "Where"]),
        ("density", vec!["How it grows", "1000 instances", "Where"]),
    ];
    for ((name, text), (_, parts)) in pages().into_iter().zip(parts) {
        let file = folder.path().join("page.html");
        std::fs::write(&file, text).unwrap();
        browser.look(false, 1280);
        browser.open(&file);
        let headings = browser.evaluate("[...document.querySelectorAll('h1, h2')].map(heading => heading.textContent)");
        for part in parts {
            assert!(
                headings.as_array().unwrap().contains(&json!(part)),
                "{name}: no {part:?} in {headings}"
            );
        }
        let nameless = "[...document.querySelectorAll('svg[role=img]')].filter(drawing => !drawing.querySelector('title')?.textContent).length";
        assert_eq!(browser.evaluate(nameless), 0, "{name}");
        assert!(
            browser
                .evaluate("document.querySelectorAll('svg[role=img]').length")
                .as_u64()
                > Some(3),
            "{name}"
        );
        // Colours of drawings come by class: one that is not there would be black.
        let black = "[...document.querySelectorAll('path.samples, .waterfall rect, .dot, .line')].filter(part => [getComputedStyle(part).fill, getComputedStyle(part).stroke].includes('rgb(0, 0, 0)')).length";
        assert_eq!(browser.evaluate(black), 0, "{name}: parts without a colour");
        let ids = "(() => { const ids = [...document.querySelectorAll('[id]')].map(part => part.id); return ids.length - new Set(ids).size; })()";
        assert_eq!(browser.evaluate(ids), 0, "{name}: an id twice");
        let loose = "[...document.querySelectorAll('[aria-labelledby]')].filter(part => !document.getElementById(part.getAttribute('aria-labelledby'))).length";
        assert_eq!(browser.evaluate(loose), 0, "{name}");
    }
}

#[test]
fn the_reader_chooses_light_or_dark_without_a_script() {
    let Some(mut browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, &pages()[0].1).unwrap();
    browser.ask("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.look(false, 1280);
    browser.open(&file);
    for (choice, paper) in [
        ("dark", "rgb(21, 23, 26)"),
        ("light", "rgb(253, 252, 250)"),
        ("auto", "rgb(253, 252, 250)"),
    ] {
        let middle = format!(
            "(() => {{ const box = document.getElementById('{choice}').getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let middle = browser.evaluate(&middle);
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({ "type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1 });
            browser.ask("Input.dispatchMouseEvent", click);
        }
        assert_eq!(
            browser.evaluate("getComputedStyle(document.body).backgroundColor"),
            paper,
            "{choice}"
        );
    }
}

#[test]
fn a_page_prints_whole_on_paper() {
    let Some(mut browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in pages() {
        let file = folder.path().join("page.html");
        std::fs::write(&file, text).unwrap();
        browser.look(true, 1280);
        browser.open(&file);
        let printed = browser.ask(
            "Page.printToPDF",
            json!({ "printBackground": true, "preferCSSPageSize": true }),
        );
        let printed = decoded(&printed);
        if let Some(folder) = shown() {
            std::fs::write(folder.join(format!("{name}.pdf")), &printed).unwrap();
        }
        assert!(printed.starts_with(b"%PDF-"));
        let text = String::from_utf8_lossy(&printed);
        let pages = text.matches("/Type /Page\n").count() + text.matches("/Type /Page ").count();
        assert!((2..40).contains(&pages), "{name}: {pages} pages");
        // On paper everything is light, open, and the choice of colours is gone.
        browser.ask("Emulation.setEmulatedMedia", json!({ "media": "print" }));
        assert_eq!(
            browser.evaluate("getComputedStyle(document.body).backgroundColor"),
            "rgb(255, 255, 255)"
        );
        assert_eq!(
            browser.evaluate("getComputedStyle(document.querySelector('.theme')).display"),
            "none"
        );
        let closed = "[...document.querySelectorAll('details table')].filter(table => !table.checkVisibility({ contentVisibilityAuto: true })).length";
        assert_eq!(browser.evaluate(closed), 0, "{name}: tables that are not printed");
        browser.ask("Emulation.setEmulatedMedia", json!({ "media": "" }));
    }
}
