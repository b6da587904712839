//! What is wanted of a processor's SVM, what it allows, and what a VMCB asks for, as a table; the twin of
//! the one of [VMX](crate::vmx::controls).
//!
//! VMX says of each control which values it may have. SVM says which features there are (CPUID leaf
//! 0x8000_000A); a feature that is there may be left alone, and an intercept may be 0 or 1, but for that of VMRUN
//! (APM volume 2, section 15.5.1).

use core::fmt;

use super::intercept::{vector3, vector4, vector5};
use super::{Features, VmcbFields, VmcbRead, fields};

/// What a backend wants, and the VMCB that it has made.
pub struct Controls<'a> {
    /// What the processor has.
    pub features: Features,
    /// Features without which it does not run guests.
    pub required: u32,
    /// Those that it uses where they are.
    pub optional: u32,
    /// What has to exit: intercept vectors 3 to 5.
    pub exits: [u32; 3],
    /// The VMCB.
    pub vmcb: &'a dyn VmcbRead,
}

impl Controls<'_> {
    /// Whether a feature is in use: the VMCB asks for it, or, of those that a VMCB says nothing of, the
    /// backend uses it where it is.
    fn uses(&self, feature: u32) -> bool {
        let has = |value: u64, bit: u32| value >> bit & 1 != 0;
        let interrupts = u64::from(self.vmcb.get(fields::VIRTUAL_INTERRUPT));
        match feature {
            Features::NESTED_PAGING => has(self.vmcb.get(fields::NESTED_CONTROL), 0),
            Features::LBR => has(self.vmcb.get(fields::VIRTUALIZATION_EXTENSIONS), 0),
            Features::VIRTUAL_VMLOAD => has(self.vmcb.get(fields::VIRTUALIZATION_EXTENSIONS), 1),
            Features::VIRTUAL_GIF => has(interrupts, 25),
            Features::VIRTUAL_NMI => has(interrupts, 26),
            Features::X2AVIC => has(interrupts, 30),
            Features::AVIC => has(interrupts, 31),
            _ => self.features.has(feature & (self.required | self.optional)),
        }
    }
}

impl fmt::Display for Controls<'_> {
    /// A table of the features, then one of each intercept vector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Features { revision, asids, bits } = self.features;
        writeln!(
            f,
            "SVM revision {revision}, {asids} ASIDs, features = {bits:#x} (APM volume 3, appendix E)"
        )?;
        let header = |f: &mut fmt::Formatter<'_>, what: &str| {
            writeln!(f, "  bit  {what:<40}{:<10}{:<9}chosen", "wanted", "allowed")
        };
        header(f, "feature")?;
        for (feature, name) in Features::ALL {
            let want = match (self.required & feature != 0, self.optional & feature != 0) {
                (true, _) => "required",
                (_, true) => "if can",
                _ => "-",
            };
            let may = if self.features.has(*feature) { "0 or 1" } else { "0" };
            let chosen = u8::from(self.uses(*feature));
            let bit = feature.trailing_zeros();
            writeln!(f, "  {bit:>3}  {name:<40}{want:<10}{may:<9}{chosen}")?;
        }
        let chosen = [
            self.vmcb.get(fields::INTERCEPT_3),
            self.vmcb.get(fields::INTERCEPT_4),
            self.vmcb.get(fields::INTERCEPT_5),
        ];
        let names = [vector3::ALL, vector4::ALL, vector5::ALL];
        for (number, ((all, wanted), chosen)) in (3..).zip(names.iter().zip(self.exits).zip(chosen)) {
            writeln!(f, "intercept vector {number} = {chosen:#x} (APM volume 2, table B-1)")?;
            header(f, "what exits")?;
            for (bit, name) in *all {
                let want = if wanted & bit != 0 { "required" } else { "-" };
                let is_vmrun = (number, *bit) == (4, vector4::VMRUN);
                let may = if is_vmrun { "1" } else { "0 or 1" };
                let on = u8::from(chosen & bit != 0);
                writeln!(f, "  {:>3}  {name:<40}{want:<10}{may:<9}{on}", bit.trailing_zeros())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PlainVmcb, VmcbWrite};
    use super::*;

    #[test]
    fn a_table_says_what_was_wanted_allowed_and_chosen() {
        let mut vmcb = PlainVmcb::default();
        vmcb.set(fields::NESTED_CONTROL, 1);
        vmcb.set(fields::INTERCEPT_3, vector3::HLT);
        vmcb.set(fields::INTERCEPT_4, vector4::VMRUN);
        let controls = Controls {
            features: Features {
                revision: 1,
                asids: 16,
                bits: Features::NESTED_PAGING | Features::AVIC | Features::CLEAN_BITS,
            },
            required: Features::NESTED_PAGING,
            optional: Features::CLEAN_BITS | Features::NRIP_SAVE,
            exits: [vector3::HLT | vector3::CPUID, vector4::VMRUN, 0],
            vmcb: &vmcb,
        };
        let text = controls.to_string();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.contains(&format!("  {name} ")));
            line.unwrap().split(name).nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(row("NP"), "required  0 or 1   1");
        assert_eq!(row("VmcbClean"), "if can    0 or 1   1");
        assert_eq!(row("NRIPS"), "if can    0        0");
        assert_eq!(row("AVIC"), "-         0 or 1   0");
        assert_eq!(row("HLT"), "required  0 or 1   1");
        assert_eq!(row("CPUID"), "required  0 or 1   0", "what a VMCB lacks shows");
        assert_eq!(row("VMRUN"), "required  1        1");
    }
}
