//! x
mod sample;
#[test]
fn write_samples() {
    let dir = std::path::Path::new("/tmp/report");
    std::fs::create_dir_all(dir).unwrap();
    sample::exits(1.0).write(&dir.join("a.json")).unwrap();
    sample::exits(1.3).write(&dir.join("b.json")).unwrap();
    sample::start().write(&dir.join("start.json")).unwrap();
}
