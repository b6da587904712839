//! What the guest is told by its arguments.

use alloc::vec::Vec;

use vmexit_cases::Done;

/// How much room samples may take, in samples.
const MAX_SAMPLES: usize = 100_000;

/// The arguments.
pub struct Options {
    /// How often each case is repeated.
    pub repeats: u32,
    /// How many samples each repeat has.
    pub samples: usize,
    /// How many come first that are thrown away.
    pub warm_up: usize,
    /// How long one repeat of a case may take, in milliseconds.
    pub budget: u64,
    /// Whether the clock is read without fences.
    pub plain: bool,
    /// Where the region for page walks is mapped by pages of 4 KiB, 2 MiB and 1 GiB; 0 for nowhere.
    pub walk: [u64; 3],
    /// The region's length, in bytes.
    pub walk_length: u64,
    /// Whether the host has put something at the [places](chiton_guest::shared::measure::place).
    pub places: bool,
    /// Where a page is mapped that the host lets nobody write; 0 for nowhere.
    pub read_only: u64,
    /// Where the local APIC's registers are mapped; 0 for nowhere.
    pub apic: u64,
    /// What sets this machine apart, if something does: names of cases end in it.
    pub variant: Option<&'static str>,
    /// The cases; all, if empty.
    cases: Vec<&'static str>,
}

impl Options {
    /// Reads them.
    pub fn read(args: impl Iterator<Item = &'static str>) -> Result<Self, &'static str> {
        let mut options = Self {
            repeats: 1,
            samples: 1000,
            warm_up: 100,
            budget: 2000,
            plain: false,
            walk: [0; 3],
            walk_length: 0,
            places: false,
            read_only: 0,
            apic: 0,
            variant: None,
            cases: Vec::new(),
        };
        for arg in args {
            match arg.split_once('=') {
                None => options.cases.push(arg),
                Some((key, value)) => options.set(key, value)?,
            }
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &'static str) -> Result<(), &'static str> {
        let number = || value.parse::<u64>().map_err(|_| "usage: vmexit [KEY=NUMBER…] [CASE…]");
        match key {
            "repeats" => self.repeats = number()?.clamp(1, 1000) as u32,
            "samples" => self.samples = number()?.clamp(1, MAX_SAMPLES as u64) as usize,
            "warmup" => self.warm_up = number()?.min(MAX_SAMPLES as u64) as usize,
            "budget" => self.budget = number()?.clamp(1, 60_000),
            "clock" => self.plain = value == "plain",
            "walk4k" => self.walk[0] = number()?,
            "walk2m" => self.walk[1] = number()?,
            "walk1g" => self.walk[2] = number()?,
            "walklen" => self.walk_length = number()?,
            "places" => self.places = number()? != 0,
            "readonly" => self.read_only = number()?,
            "variant" => self.variant = Some(value),
            "apic" => self.apic = number()?,
            _ => return Err("there is no such key: see the head of vmexit's main.rs"),
        }
        Ok(())
    }

    /// Whether there are eventfds and zones; if not, why.
    pub fn has_places(&self) -> Done {
        if self.places {
            Ok(())
        } else {
            Err("this machine's host has neither eventfds nor coalesced I/O")
        }
    }

    /// Whether the host's kernel has an interrupt controller for the guest; if not, why.
    pub fn has_interrupt_controller(&self) -> Done {
        if self.apic == 0 {
            Err("this machine's host has no interrupt controller below its program")
        } else {
            Ok(())
        }
    }

    /// Whether this case is to run.
    pub fn wants(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.contains(&name)
    }
}
