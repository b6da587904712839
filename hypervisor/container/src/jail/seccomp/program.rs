//! A filter as the kernel reads it: a program of classic BPF (`seccomp(2)`, Documentation/userspace-api/seccomp_filter.rst).
//!
//! ```text
//!   the machine of the call ── not x86-64 ──▶ kill
//!   its number ── from 64 on? ─┬─ no ── from 16 on? ─┬─ …
//!                              └─ yes ─ …            └─ … ──▶ allow, an error, or its arguments are looked at
//! ```
//!
//! A chain of comparisons, one a call, would do. But when a filter is installed the kernel runs it once for each
//! number there is, so that calls that are always allowed need no filter later; for a chain that takes
//! longer than all the rest. So numbers that meet with the same fate are ranges, and a range is found by halving.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_DATA, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_LOG, sock_filter,
};

/// `AUDIT_ARCH_X86_64` (linux/audit.h).
const X86_64: u32 = 0xC000_003E;
/// Where things are in `struct seccomp_data`: the number, the machine, six arguments of 8 bytes.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// How far a comparison can jump, with room for one more instruction before it.
const NEAR: usize = 250;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Allow,
    Errno(u32),
    Kill,
    Log,
}

impl Fate {
    const fn code(self) -> u32 {
        match self {
            Self::Allow => SECCOMP_RET_ALLOW,
            Self::Errno(errno) => SECCOMP_RET_ERRNO | errno & SECCOMP_RET_DATA,
            Self::Kill => SECCOMP_RET_KILL_PROCESS,
            Self::Log => SECCOMP_RET_LOG,
        }
    }
}

/// How the lower half of an argument, which is all of it that the kernel uses, is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Is(u32),
    IsNot(u32),
    /// These bits are 0.
    Without(u32),
}

/// An argument, from 0 to 5, and what must be true of it.
pub(super) type Condition = (u8, Test);

/// What is said of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Always(Fate),
    /// This fate if all conditions of one of these rules are true; else as a call that is not listed.
    If(Vec<Vec<Condition>>, Fate),
}

/// The place of an instruction, counted from the end of the program: it is written from there, since jumps only lead
/// forward.
type Label = usize;

/// A program, from its end.
struct Writer {
    code: Vec<sock_filter>,
    /// Where each fate was written last.
    fates: Vec<(Fate, Label)>,
}

/// Compiles what is said of some calls, and of all others.
pub(super) fn compile(mut entries: Vec<(u32, Entry)>, others: Fate) -> Vec<sock_filter> {
    entries.sort_by_key(|(number, _)| *number);
    let others_always = Entry::Always(others);
    // Each range reaches to the next; at most two for each entry.
    let mut ranges = vec![(0, &others_always)];
    for (number, entry) in &entries {
        add(&mut ranges, *number, entry);
        add(&mut ranges, number.saturating_add(1), &others_always);
    }
    let mut writer = Writer {
        code: Vec::with_capacity(4 * entries.len() + 16),
        fates: Vec::new(),
    };
    let root = writer.tree(&ranges, others);
    writer.fall_to(root);
    writer.load(NUMBER);
    writer.push(BPF_RET | BPF_K, Fate::Kill.code(), 0, 0);
    writer.push(BPF_JMP | BPF_JEQ | BPF_K, X86_64, 1, 0);
    writer.load(MACHINE);
    writer.code.reverse();
    writer.code
}

/// Begins a range, unless it is as the one before.
fn add<'e>(ranges: &mut Vec<(u32, &'e Entry)>, from: u32, entry: &'e Entry) {
    if ranges.last().is_some_and(|(last, _)| *last == from) {
        ranges.pop();
    }
    let goes_on = ranges.last().is_some_and(|(_, was)| *was == entry) && matches!(entry, Entry::Always(_));
    if !goes_on {
        ranges.push((from, entry));
    }
}

impl Writer {
    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) -> Label {
        self.code.push(sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        });
        self.code.len() - 1
    }

    fn load(&mut self, offset: u32) -> Label {
        self.push(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
    }

    /// How many instructions the next one has to jump over to get there.
    fn distance(&self, to: Label) -> usize {
        self.code.len() - to - 1
    }

    /// A place that the next comparison can jump to, and one more instruction may come before that.
    fn near(&mut self, to: Label) -> Label {
        let distance = self.distance(to);
        if distance <= NEAR {
            return to;
        }
        self.push(BPF_JMP | BPF_JA, distance as u32, 0, 0)
    }

    /// Makes whatever comes before go on there.
    fn fall_to(&mut self, to: Label) {
        let distance = self.distance(to);
        if distance > 0 {
            self.push(BPF_JMP | BPF_JA, distance as u32, 0, 0);
        }
    }

    /// Compares what is loaded.
    fn compare(&mut self, how: u32, with: u32, yes: Label, no: Label) -> Label {
        let (yes, no) = (self.near(yes), self.near(no));
        let (yes, no) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(BPF_JMP | how | BPF_K, with, yes, no)
    }

    fn fate(&mut self, fate: Fate) -> Label {
        let known = self.fates.iter().position(|(known, _)| *known == fate);
        if let Some(known) = known
            && self.distance(self.fates[known].1) < NEAR / 2
        {
            return self.fates[known].1;
        }
        let label = self.push(BPF_RET | BPF_K, fate.code(), 0, 0);
        match known {
            Some(known) => self.fates[known].1 = label,
            None => self.fates.push((fate, label)),
        }
        label
    }

    /// Finds the range of the number that is loaded.
    fn tree(&mut self, ranges: &[(u32, &Entry)], others: Fate) -> Label {
        match ranges {
            [] => self.fate(others),
            [(_, Entry::Always(fate))] => self.fate(*fate),
            [(_, Entry::If(rules, fate))] => self.rules(rules, *fate, others),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let from = high[0].0;
                let high = self.tree(high, others);
                let low = self.tree(low, others);
                self.compare(BPF_JGE, from, high, low)
            }
        }
    }

    /// Looks at arguments.
    fn rules(&mut self, rules: &[Vec<Condition>], fate: Fate, others: Fate) -> Label {
        let mut next = self.fate(others);
        // Where the next rule begins for who has this argument loaded already.
        let mut next_loaded: Option<(u8, Label)> = None;
        for rule in rules.iter().rev() {
            let keeps = rule
                .iter()
                .all(|(argument, test)| *argument == rule[0].0 && !matches!(test, Test::Without(_)));
            let otherwise = match (keeps, rule.first(), next_loaded) {
                (true, Some((argument, _)), Some((loaded, label))) if *argument == loaded => label,
                _ => next,
            };
            let mut then = self.fate(fate);
            for (argument, test) in rule.iter().rev() {
                let tested = match *test {
                    Test::Is(value) => self.compare(BPF_JEQ, value, then, otherwise),
                    Test::IsNot(value) => self.compare(BPF_JEQ, value, otherwise, then),
                    Test::Without(bits) => {
                        let tested = self.compare(BPF_JEQ, 0, then, otherwise);
                        debug_assert_eq!(self.distance(tested), 0);
                        self.push(BPF_ALU | BPF_AND | BPF_K, bits, 0, 0)
                    }
                };
                next_loaded = Some((*argument, tested));
                then = self.load(ARGUMENTS + 8 * u32::from(*argument));
            }
            next = then;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel does (net/core/filter.c, `bpf_check_classic`: jumps lead forward, and the end is
    /// never reached).
    fn run(program: &[sock_filter], machine: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            MACHINE => machine,
            _ => {
                assert_eq!(offset % 8, 0, "the lower half");
                arguments[(offset as usize - 16) / 8] as u32
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let choose = |yes| usize::from(if yes { jt } else { jf });
            match u32::from(code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => a = word(k),
                code if code == BPF_ALU | BPF_AND | BPF_K => a &= k,
                code if code == BPF_JMP | BPF_JA => at += k as usize,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => at += choose(a == k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += choose(a >= k),
                code if code == BPF_RET | BPF_K => return k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// What the entries say, read as they stand.
    fn said(entries: &[(u32, Entry)], others: Fate, number: u32, arguments: [u64; 6]) -> Fate {
        let holds = |(argument, test): &Condition| {
            let value = arguments[usize::from(*argument)] as u32;
            match *test {
                Test::Is(wanted) => value == wanted,
                Test::IsNot(wanted) => value != wanted,
                Test::Without(bits) => value & bits == 0,
            }
        };
        match entries.iter().find(|(listed, _)| *listed == number) {
            Some((_, Entry::Always(fate))) => *fate,
            Some((_, Entry::If(rules, fate))) if rules.iter().any(|rule| rule.iter().all(holds)) => *fate,
            _ => others,
        }
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            Just(Fate::Allow),
            Just(Fate::Kill),
            Just(Fate::Log),
            (1..100_u32).prop_map(Fate::Errno)
        ]
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let test = prop_oneof![
            (0..6_u32).prop_map(Test::Is),
            (0..6_u32).prop_map(Test::IsNot),
            (0..6_u32).prop_map(Test::Without)
        ];
        (0..3_u8, test)
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let rule = proptest::collection::vec(condition(), 1..4);
        prop_oneof![
            3 => fate().prop_map(Entry::Always),
            1 => (proptest::collection::vec(rule, 0..40), fate()).prop_map(|(rules, fate)| Entry::If(rules, fate)),
        ]
    }

    proptest! {
        #[test]
        fn a_program_does_what_the_entries_say(
            entries in proptest::collection::btree_map(0..600_u32, entry(), 0..80),
            others in fate(),
            asked in proptest::collection::vec((0..610_u32, proptest::array::uniform6(0..8_u64)), 50),
        ) {
            let entries: Vec<_> = entries.into_iter().collect();
            let program = compile(entries.clone(), others);
            prop_assert!(program.len() <= libc::BPF_MAXINSNS as usize);
            for (number, arguments) in asked {
                // As often one that is listed.
                let listed = entries.get(number as usize % 100).map(|(number, _)| *number);
                for number in listed.into_iter().chain([number, number + 0x4000_0000, u32::MAX]) {
                    for high in [0, 1 << 32, u64::MAX << 32] {
                        let arguments = arguments.map(|argument| argument | high);
                        let fate = said(&entries, others, number, arguments);
                        prop_assert_eq!(run(&program, X86_64, number, arguments), fate.code());
                    }
                }
                prop_assert_eq!(run(&program, 0x4000_0003, number, arguments), SECCOMP_RET_KILL_PROCESS);
            }
        }
    }

    #[test]
    fn what_is_alike_is_one_range() {
        let all = (10..400).map(|number| (number, Entry::Always(Fate::Allow))).collect();
        assert!(compile(all, Fate::Kill).len() < 12);
    }
}
