//! AMD's SVM.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use chiton_bare::command::Show;
use chiton_core::paging::Size;
use chiton_core::physical::GuestRam;
use chiton_core::svm::dump::Dump;
use chiton_svm::{Options, Svm, SvmVcpu};

use super::{Backend, Refused, Report};
use crate::machine::debug::say;

impl Backend for Svm {
    type Vcpu = SvmVcpu;

    const NAME: &'static str = "SVM";

    fn vcpu(&self, memory: GuestRam, show: &Show) -> Result<SvmVcpu, Refused> {
        let mut options = Options {
            check: show.check,
            ..Options::default()
        };
        if show.small_pages {
            options.largest_page = Size::Small;
        }
        if show.trace {
            options.trace = Some(Box::new(|trace| say!("{trace}")));
        }
        self.vcpu(memory, options).map_err(|error| Refused::new(&error))
    }

    fn controls(&self, _vcpu: &SvmVcpu) -> String {
        self.features().to_string()
    }
}

impl Report for SvmVcpu {
    fn counts(&self) -> String {
        self.counts().to_string()
    }

    fn why(&self) -> String {
        self.report().map_or_else(String::new, ToString::to_string)
    }

    fn control_structure(&mut self) -> String {
        Dump(self.vmcb()).to_string()
    }

    fn walk(&mut self, address: u64) -> String {
        format!("{address:#x}")
    }
}
