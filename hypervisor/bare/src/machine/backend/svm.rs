//! AMD's SVM.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use chiton_bare::command::Show;
use chiton_core::apic::GuestApic;
use chiton_core::loader::Symbols;
use chiton_core::paging::Size;
use chiton_core::physical::GuestRam;
use chiton_core::space::GivenBack;
use chiton_core::svm::dump::Dump;
use chiton_svm::{Options, Svm, SvmVcpu, examples};

use super::{Backend, Refused, Report, place};
use crate::machine::debug::{Words, say};

impl Backend for Svm {
    type Vcpu = SvmVcpu;

    const NAME: &'static str = "SVM";

    fn vcpu(
        &self,
        memory: GuestRam,
        show: &Show,
        symbols: Symbols<'static>,
        apic: Option<GuestApic>,
        given_back: Option<(Arc<GivenBack>, u32)>,
    ) -> Result<SvmVcpu, Refused> {
        if show.without_accessed_dirty || show.misconfigure {
            return Err(Refused::new(
                &"ept-ad=0 and misconfigure=1 are of EPT, and this processor has NPT: take the lines away",
            ));
        }
        let mut options = Options {
            check: show.check,
            broken: show.broken.clone(),
            apic,
            given_back,
            ..Options::default()
        };
        if show.small_pages {
            options.largest_page = Size::Small;
        }
        if show.trace {
            options.trace = Some(Box::new(move |trace| {
                say!("{}", trace.at(&place(&symbols, trace.registers.rip)));
            }));
        }
        self.vcpu(memory, options).map_err(|error| Refused::new(&error))
    }

    fn controls(&self, vcpu: &SvmVcpu) -> String {
        vcpu.controls().to_string()
    }

    fn example(&self, name: &str, memory: GuestRam) -> Result<bool, Refused> {
        if let Some((_, about)) = examples::ALL.into_iter().find(|(of, _)| *of == name) {
            say!("{name}: {about}");
        }
        let verdict = examples::run(name, self, memory, &mut Words).map_err(|error| Refused::new(&error))?;
        let Some(verdict) = verdict else {
            return Err(Refused::new(&format_args!(
                "there is no example {name:?} of SVM; there are {}",
                examples::ALL.map(|(name, _)| name).join(", ")
            )));
        };
        say!("{name}: {verdict}");
        Ok(!verdict.is_failure())
    }
}

impl Report for SvmVcpu {
    fn counts(&self) -> String {
        self.counts().to_string()
    }

    fn why(&self) -> String {
        self.report().map_or_else(String::new, ToString::to_string)
    }

    fn checked(&self) -> Option<String> {
        let entries = Some(self.checked()).filter(|entries| *entries > 0)?;
        Some(format!(
            "entry check: every rule of VMRUN held before each of {entries} entries"
        ))
    }

    fn control_structure(&mut self) -> String {
        Dump(self.vmcb()).to_string()
    }

    fn walk(&mut self, address: u64) -> String {
        // The path names the method of the type, not this one.
        Self::walk(self, address).to_string()
    }
}
