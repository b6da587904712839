//! Names for who was given none.

/// What chitons are like.
const LIKE: [&str; 32] = [
    "agile",
    "amber",
    "ancient",
    "armoured",
    "bold",
    "bristly",
    "calm",
    "coastal",
    "curled",
    "dappled",
    "deep",
    "eager",
    "gentle",
    "girdled",
    "granular",
    "hidden",
    "humble",
    "lined",
    "mossy",
    "mottled",
    "nimble",
    "nocturnal",
    "pale",
    "patient",
    "quiet",
    "radular",
    "scaly",
    "silent",
    "steady",
    "tidal",
    "tuberculate",
    "woody",
];

/// Genera of chitons.
const GENERA: [&str; 32] = [
    "acanthochitona",
    "amaurochiton",
    "boreochiton",
    "callochiton",
    "chaetopleura",
    "chiton",
    "choneplax",
    "cryptochiton",
    "cryptoplax",
    "cyanoplax",
    "dendrochiton",
    "enoplochiton",
    "gadila",
    "hanleya",
    "ischnochiton",
    "katharina",
    "lepidochitona",
    "lepidopleurus",
    "leptochiton",
    "liolophura",
    "loricella",
    "mopalia",
    "nuttallina",
    "onithochiton",
    "placiphorella",
    "plaxiphora",
    "rhyssoplax",
    "schizochiton",
    "stenoplax",
    "sypharochiton",
    "tonicella",
    "tonicia",
];

/// The name that this number stands for: one of 1024, with a suffix beyond them.
pub(super) fn nth(number: u32) -> String {
    let (like, genus) = ((number % 32) as usize, (number / 32 % 32) as usize);
    match number / 1024 % 4096 {
        0 => format!("{}-{}", LIKE[like], GENERA[genus]),
        more => format!("{}-{}-{more:x}", LIKE[like], GENERA[genus]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Name;

    #[test]
    fn all_of_them_are_names_and_no_two_the_same() {
        let names: std::collections::BTreeSet<_> = (0..4096).map(nth).collect();
        assert_eq!(names.len(), 4096);
        assert!(names.iter().all(|name| Name::new(name).is_ok()));
    }
}
