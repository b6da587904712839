//! Intel's VMX.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use chiton_bare::command::Show;
use chiton_core::apic::GuestApic;
use chiton_core::loader::Symbols;
use chiton_core::paging::Size;
use chiton_core::physical::GuestRam;
use chiton_core::space::GivenBack;
use chiton_core::vmx::check::rules;
use chiton_core::vmx::dump::Dump;
use chiton_vmx::examples::{self, Example};
use chiton_vmx::{Options, Vmx, VmxVcpu};

use super::{Backend, Refused, Report, place};
use crate::machine::debug::{Words, say};

impl Backend for Vmx {
    type Vcpu = VmxVcpu;

    const NAME: &'static str = "VMX";

    fn vcpu(
        &self,
        memory: GuestRam,
        show: &Show,
        symbols: Symbols<'static>,
        apic: Option<GuestApic>,
        given_back: Option<(Arc<GivenBack>, u32)>,
    ) -> Result<VmxVcpu, Refused> {
        let mut options = Options {
            check: show.check,
            broken: show.broken.clone(),
            accessed_dirty: !show.without_accessed_dirty,
            misconfigure: show.misconfigure,
            apic,
            given_back,
            virtual_apic: !show.without_virtual_apic,
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

    fn controls(&self, vcpu: &VmxVcpu) -> String {
        vcpu.controls().to_string()
    }

    fn example(&self, name: &str, memory: GuestRam) -> Result<bool, Refused> {
        let example = Example::find(name).ok_or_else(|| {
            let names: Vec<&str> = examples::ALL.iter().map(|example| example.name).collect();
            Refused::new(&format_args!(
                "there is no example {name:?}; there are {}",
                names.join(", ")
            ))
        })?;
        say!("{name}: {}", example.about);
        let verdict = example
            .run(self, memory, &mut Words)
            .map_err(|error| Refused::new(&error))?;
        say!("{name}: {verdict}");
        Ok(!verdict.is_failure())
    }
}

impl Report for VmxVcpu {
    fn counts(&self) -> String {
        self.counts().to_string()
    }

    fn why(&self) -> String {
        self.report().map_or_else(String::new, ToString::to_string)
    }

    fn checked(&self) -> Option<String> {
        let entries = Some(self.checked()).filter(|entries| *entries > 0)?;
        Some(format!(
            "entry check: all {} rules held before each of {entries} entries",
            rules()
        ))
    }

    fn control_structure(&mut self) -> String {
        match self.vmcs() {
            Ok(vmcs) => Dump(vmcs).to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn walk(&mut self, address: u64) -> String {
        match VmxVcpu::walk(self, address) {
            Ok(walk) => walk.to_string(),
            Err(error) => format!("no walk of {address:#x}: {error}"),
        }
    }
}
