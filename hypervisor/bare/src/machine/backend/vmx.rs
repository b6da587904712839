//! Intel's VMX.

use alloc::string::{String, ToString};

use chiton_bare::command::Show;
use chiton_core::paging::Size;
use chiton_core::physical::GuestRam;
use chiton_core::vmx::dump::Dump;
use chiton_vmx::{Options, Vmx, VmxVcpu};

use super::{Backend, Refused, Report};
use crate::machine::debug::say;

impl Backend for Vmx {
    type Vcpu = VmxVcpu;

    const NAME: &'static str = "VMX";

    fn vcpu(&self, memory: GuestRam, show: &Show) -> Result<VmxVcpu, Refused> {
        let mut options = Options {
            check: show.check,
            ..Options::default()
        };
        if show.small_pages {
            options.largest_page = Size::Small;
        }
        if show.trace {
            options.trace = Some(alloc::boxed::Box::new(|trace| say!("{trace}")));
        }
        self.vcpu(memory, options).map_err(|error| Refused::new(&error))
    }

    fn controls(&self, vcpu: &VmxVcpu) -> String {
        vcpu.controls().to_string()
    }
}

impl Report for VmxVcpu {
    fn counts(&self) -> String {
        self.counts().to_string()
    }

    fn why(&self) -> String {
        self.report().map_or_else(String::new, ToString::to_string)
    }

    fn control_structure(&mut self) -> String {
        self.vmcs()
            .map_or_else(|error| error.to_string(), |vmcs| Dump(vmcs).to_string())
    }

    fn walk(&mut self, address: u64) -> String {
        // The path names the method of the type, not this one.
        Self::walk(self, address).map_or_else(|error| error.to_string(), |walk| walk.to_string())
    }
}
