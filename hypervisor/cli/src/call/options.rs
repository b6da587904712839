//! The options of `chiton call`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::options::{RingOption, duration, size, variable};

#[derive(Debug, Args)]
pub(crate) struct CallOptions {
    /// The request: this text. Without --input and --file it is read from standard input.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) input: Option<String>,

    /// The request: what is in this file.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,

    /// Call so many times; the reply that is written is the last one.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) times: u64,

    /// Keep the guest's state from call to call, which is quicker: a call finds what those before it have left.
    #[arg(short, long)]
    pub(crate) warm: bool,

    /// Call from so many threads, each with a machine of its own.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) parallel: u16,

    /// Write what became of the calls as JSON, instead of the reply.
    #[arg(long)]
    pub(crate) json: bool,

    /// Guest memory: bytes, or a number with K, M, G or T. Pages cost nothing until touched.
    #[arg(short, long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub(crate) memory: u64,

    /// An environment variable for the guest. May be given several times.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) env: Vec<String>,

    /// How long a call may take, and the guest to become ready: seconds, or a number with ms, s, m or h.
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// Run the guest's code in this ring, whatever its manifest says.
    #[arg(long, value_name = "RING", value_enum)]
    pub(crate) ring: Option<RingOption>,

    /// Call without a jail, with all rights of who calls. CHITON_JAIL=off does the same.
    #[arg(long)]
    pub(crate) no_jail: bool,

    /// The KVM device.
    #[arg(long, value_name = "PATH", default_value = chiton_kvm::platform::DEV_KVM)]
    pub(crate) kvm: PathBuf,

    /// The guest, an ELF file, and its arguments: what follows GUEST belongs to the guest.
    #[arg(value_names = ["GUEST", "ARGS"], required = true, num_args = 1.., trailing_var_arg = true,
          allow_hyphen_values = true)]
    pub(crate) guest: Vec<String>,
}

impl CallOptions {
    /// Whether the guest is to have the rights of who calls.
    pub(super) fn without_jail(&self) -> bool {
        self.no_jail || std::env::var_os("CHITON_JAIL").is_some_and(|jail| jail == "off")
    }
}
