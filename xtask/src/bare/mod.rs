//! The boot image, and the emulators that boot it.
//!
//! ```text
//!   hypervisor/bare ─▶ kernel ┐
//!   guests, command ─▶ ramdisk┴─▶ xtask/image ─▶ disk image ─▶ Bochs (VMX) or QEMU (SVM)
//!                                                                │ COM1        │ port 0xE9
//!                                                          standard output   standard error
//! ```
//!
//! With `--vsock` or `--net`, COM2 leads to `chiton-relay`, which has sockets and a network for the guest.

mod bochs;
mod emulator;
mod folder;
mod image;
mod outside;
mod qemu;
mod ramdisk;
pub(crate) mod talk;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::{
    error::{Error, Result},
    guests, paths,
};
pub(crate) use bochs::Model;
pub(crate) use emulator::{Ended, Input, Machine};
pub(crate) use folder::Folder;
use image::Kind;
pub(crate) use outside::{OutsideArgs, Relay, RelayArgs, relay};
pub(crate) use qemu::Processor;
use ramdisk::Ramdisk;

/// What an emulated machine has beside its processor's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hardware {
    /// Memory, in MiB.
    pub(crate) memory: u32,
    /// How many processors.
    pub(crate) processors: u32,
    /// Whether QEMU has the port for the hypervisor's words, which else come on the serial line.
    pub(crate) debug_port: bool,
    /// Whether COM2 leads to where a [`Relay`] can be.
    pub(crate) line: bool,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            memory: 512,
            processors: 1,
            debug_port: true,
            line: false,
        }
    }
}

/// The line of the `command` file by which a guest has what a [`Relay`] has for it.
pub(crate) const LINE: &str = "line=com2";
/// The line by which the network that comes by it is behind registers.
pub(crate) const EMULATED_NET: &str = "emulated-net=1";

/// How many processors an emulated machine can have: Bochs' BIOS knows no more.
const MAX_PROCESSORS: i64 = 8;

/// What emulates the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Bochs, which emulates VMX.
    Bochs,
    /// QEMU, which emulates SVM, and has VMX where this machine's KVM nests it.
    Qemu,
}

/// Arguments of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// The guest that it runs: an example's name, a directory with a guest's package, or an ELF file.
    #[arg(default_value = "hello")]
    app: String,
    /// A disk: a copy of this file, on the image's ramdisk; with :ro behind it read-only. May be given several times.
    #[arg(long, value_name = "PATH[:ro]")]
    disk: Vec<String>,
    /// A folder whose files the guest can read, under the folder's own name; with :rw behind it write too: a copy of it as
    /// it is now, on the image's ramdisk. What the guest writes is lost at its end. May be given several times.
    #[arg(short, long, value_name = "PATH[:rw]")]
    folder: Vec<String>,
    /// A disk behind the registers of an ATA device instead of virtio.
    #[arg(long, value_name = "PATH[:ro]")]
    emulated_disk: Option<String>,
    /// A line for its `command` file, such as `memory=64M` or `exits=1`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Arguments of `cargo xtask vmx` and `cargo xtask svm`, up to the `--` before the guest's own.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The guest: an example's name, a directory with a guest's package, or an ELF file.
    #[arg(default_value = "hello")]
    app: String,
    /// The emulator.
    #[arg(long = "in", value_name = "PLACE")]
    place: Option<Place>,
    /// The processor that Bochs emulates.
    #[arg(long, default_value = "skylake_x", value_name = "MODEL")]
    model: bochs::Model,
    /// Boot by UEFI instead of the BIOS (in QEMU).
    #[arg(long)]
    uefi: bool,
    /// How many processors the machine has, with a guest on each: all at once.
    #[arg(long, value_name = "PROCESSORS", default_value_t = 1, conflicts_with_all = ["vsock", "net", "example", "prove"],
          value_parser = clap::value_parser!(u32).range(1..=MAX_PROCESSORS))]
    on_each: u32,
    /// How many processors the machine has, and the guest.
    #[arg(long, value_name = "PROCESSORS", default_value_t = 1, conflicts_with_all = ["on_each", "example", "prove"],
          value_parser = clap::value_parser!(u32).range(1..=MAX_PROCESSORS))]
    cpus: u32,
    /// A disk: a copy of this file, on the image's ramdisk; with :ro behind it read-only. What the guest writes is lost
    /// at its end. May be given several times.
    #[arg(long, value_name = "PATH[:ro]")]
    disk: Vec<String>,
    /// A folder whose files the guest can read, under the folder's own name; with :rw behind it write too: a copy of it as
    /// it is now, on the image's ramdisk. What the guest writes is lost at its end. May be given several times.
    #[arg(short, long, value_name = "PATH[:rw]")]
    folder: Vec<String>,
    /// A disk behind the registers of an ATA device instead of virtio.
    #[arg(long, value_name = "PATH[:ro]")]
    emulated_disk: Option<String>,
    /// A network interface behind the registers of an Intel 8254x, without an IP address, whose other end is the TAP device
    /// NAME.
    #[arg(long, value_name = "tap=NAME", conflicts_with_all = ["net", "example", "prove", "on_each"])]
    emulated_net: Option<String>,
    /// A balloon, by which the guest can give memory back; with SIZE, how much the host would like to have.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    balloon: Option<String>,
    /// How long the guest may run, such as `5s` or `200ms`.
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// A line for the image's `command` file, such as `memory=64M` or `exits=1`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run no guest, but an example of what the processor can, such as `page-log`.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["app", "vsock", "net"])]
    example: Option<String>,
    /// Run no guest, but compare the entry checker with the processor in thousands of cases.
    #[arg(long, conflicts_with_all = ["app", "example", "vsock", "net"])]
    prove: bool,
    #[command(flatten)]
    outside: OutsideArgs,
    #[command(flatten)]
    show: ShowArgs,
}

/// What to show of a guest: each is a line of the `command` file.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct ShowArgs {
    /// The table of exits.
    #[arg(long)]
    exits: bool,
    /// Each exit as it happens.
    #[arg(long)]
    trace: bool,
    /// The VMCS or VMCB at the end.
    #[arg(long, visible_alias = "vmcb")]
    vmcs: bool,
    /// The controls: wanted, allowed, chosen.
    #[arg(long)]
    controls: bool,
    /// The rules of VM entries.
    #[arg(long)]
    check: bool,
    /// The two-dimensional page walk of a guest-virtual address, at the end.
    #[arg(long, value_name = "ADDRESS")]
    walk: Vec<String>,
}

impl ShowArgs {
    /// The lines of the `command` file.
    fn lines(&self) -> impl Iterator<Item = String> {
        let flags = [
            ("exits", self.exits),
            ("trace", self.trace),
            ("vmcs", self.vmcs),
            ("controls", self.controls),
            ("check", self.check),
        ];
        let flags = flags.into_iter().filter(|(_, on)| *on);
        let walks = self.walk.iter().map(|address| format!("walk={address}"));
        flags.map(|(key, _)| format!("{key}=1")).chain(walks)
    }
}

/// Makes both images for a guest, and says how to use them.
///
/// # Errors
///
/// If something does not build.
pub(crate) fn image(args: &ImageArgs, arguments: &[String]) -> Result<()> {
    let files = Files {
        disks: &args.disk,
        emulated_disk: args.emulated_disk.as_deref(),
        folders: &args.folder,
    };
    let ramdisk = ramdisk(&args.app, &args.set, files, arguments, 1)?;
    for kind in [Kind::Bios, Kind::Uefi] {
        let image = image::make(kind, Some(&ramdisk), "chiton")?;
        println!("{}: {}", kind.named(), image.display());
    }
    Ok(())
}

/// Runs a guest on bare VMX and returns its exit status.
///
/// # Errors
///
/// If something does not build, or the machine does not end as it should.
pub(crate) fn vmx(args: &RunArgs, arguments: &[String]) -> Result<i32> {
    run(args, arguments, args.place.unwrap_or(Place::Bochs), Processor::Own)
}

/// Runs a guest on bare SVM and returns its exit status.
///
/// # Errors
///
/// If something does not build, or the machine does not end as it should.
pub(crate) fn svm(args: &RunArgs, arguments: &[String]) -> Result<i32> {
    if args.place == Some(Place::Bochs) {
        return Err(Error::Usage(
            "Bochs emulates no SVM worth the name: leave `--in bochs` away, and it runs in QEMU".into(),
        ));
    }
    run(args, arguments, Place::Qemu, Processor::Svm)
}

/// A machine to boot an image in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emulated {
    /// By Bochs.
    Bochs(Model),
    /// By QEMU.
    Qemu(Processor),
    /// By QEMU, with SVM, as far as that goes like a machine on a desk: it boots by UEFI and has no debug port.
    LikeOnDesk,
}

impl Emulated {
    /// The image for it, with this ramdisk, if any.
    ///
    /// # Errors
    ///
    /// If something does not build.
    pub(crate) fn image(self, name: &str, ramdisk: Option<&[u8]>) -> Result<PathBuf> {
        let kind = match self {
            Self::LikeOnDesk => Kind::Uefi,
            Self::Bochs(_) | Self::Qemu(_) => Kind::Bios,
        };
        image::make(kind, ramdisk, name)
    }

    /// Starts it with this image.
    ///
    /// # Errors
    ///
    /// If it is not there, or does not start.
    pub(crate) fn boot(self, image: &Path) -> Result<Machine> {
        self.boot_with(image, Hardware::default())
    }

    /// The same with this hardware.
    ///
    /// # Errors
    ///
    /// As [`boot`](Self::boot).
    pub(crate) fn boot_with(self, image: &Path, hardware: Hardware) -> Result<Machine> {
        match self {
            Self::Bochs(model) => Machine::bochs(image, model, hardware),
            Self::Qemu(processor) => Machine::qemu(image, Kind::Bios, processor, hardware),
            Self::LikeOnDesk => {
                let hardware = Hardware {
                    debug_port: false,
                    ..hardware
                };
                Machine::qemu(image, Kind::Uefi, Processor::Svm, hardware)
            }
        }
    }
}

/// An image that is booted by BIOS, with this ramdisk, if any.
///
/// # Errors
///
/// If something does not build.
pub(crate) fn image_of(name: &str, ramdisk: Option<&[u8]>) -> Result<PathBuf> {
    image::make(Kind::Bios, ramdisk, name)
}

/// The same, of a kernel that was changed.
///
/// # Errors
///
/// If something does not build, or the change fails.
pub(crate) fn image_of_changed(
    name: &str,
    ramdisk: Option<&[u8]>,
    change: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<PathBuf> {
    let mut bytes = image::kernel_bytes()?;
    change(&mut bytes)?;
    let kernel = paths::images().join(format!("{name}-kernel"));
    drop(fs::remove_file(&kernel));
    fs::write(&kernel, bytes).map_err(Error::file("write", &kernel))?;
    image::make_of(&kernel, Kind::Bios, ramdisk, name)
}

/// A ramdisk with these files, and `command` if there is to be one.
///
/// # Errors
///
/// If it cannot be made of them.
pub(crate) fn ramdisk_with(files: &[(String, Vec<u8>)], command: Option<&[String]>) -> Result<Vec<u8>> {
    let mut ramdisk = Ramdisk::default();
    for (file, content) in files {
        ramdisk.add(file, content)?;
    }
    if let Some(lines) = command {
        ramdisk.command(lines)?;
    }
    ramdisk.finish(&image::kernel_bytes()?)
}

/// A machine that runs a guest with these lines of the `command` file and these arguments.
///
/// # Errors
///
/// If something does not build, or the machine does not start.
pub(crate) fn guest(app: &str, set: &[String], arguments: &[String], machine: Emulated) -> Result<Machine> {
    let ramdisk = ramdisk(app, set, Files::default(), arguments, 1)?;
    machine.boot(&image::make(Kind::Bios, Some(&ramdisk), "guest")?)
}

/// A machine that runs examples instead of guests, one after the other; its status is 0 if each went as the manual
/// says or could not be shown there.
///
/// # Errors
///
/// If something does not build, or the machine does not start.
pub(crate) fn examples(names: &[&str], machine: Emulated) -> Result<Machine> {
    let image = machine.image("example", Some(&example_ramdisk(names, &[])?))?;
    machine.boot(&image)
}

/// With the guest's console on standard output, and the hypervisor's words on standard error.
fn run(args: &RunArgs, arguments: &[String], place: Place, processor: Processor) -> Result<i32> {
    let kind = if args.uefi { Kind::Uefi } else { Kind::Bios };
    if (kind, place) == (Kind::Uefi, Place::Bochs) {
        return Err(Error::Usage(
            "Bochs has a BIOS: leave `--uefi` away, or use `--in qemu`".into(),
        ));
    }
    let timeout = args.timeout.iter().map(|time| format!("timeout={time}"));
    let balloon = args.balloon.iter().map(|size| format!("balloon={size}"));
    let set: Vec<_> = args
        .set
        .iter()
        .cloned()
        .chain(args.show.lines())
        .chain(timeout)
        .chain(balloon)
        .collect();
    let with_address = |net: &&String| net.contains(",ip=") || net.contains(",gateway=");
    if let Some(net) = args.emulated_net.as_ref().filter(with_address) {
        return Err(Error::Usage(format!(
            "an emulated network interface has no IP address: leave ip= and gateway= of {net} out, or use --net"
        )));
    }
    let mut of_relay = args.outside.clone();
    // What the relay has at its end is the same.
    of_relay.net = of_relay.net.or_else(|| args.emulated_net.clone());
    let outside = of_relay.is_wanted();
    let example = args.example.as_deref().or(args.prove.then_some("prove"));
    let (ramdisk, what) = match example {
        Some(name) => (example_ramdisk(&[name], &set)?, name),
        None => {
            // Standard input is typed on the serial line, where it has an end.
            let first = ["input=serial".into(), format!("cpus={}", args.cpus)];
            let line = outside.then(|| LINE.into());
            let nic = args.emulated_net.iter().map(|_| EMULATED_NET.into());
            let set: Vec<_> = first.into_iter().chain(line).chain(nic).chain(set).collect();
            let files = Files {
                disks: &args.disk,
                emulated_disk: args.emulated_disk.as_deref(),
                folders: &args.folder,
            };
            (
                ramdisk(&args.app, &set, files, arguments, args.on_each)?,
                args.app.as_str(),
            )
        }
    };
    let hardware = Hardware {
        processors: args.on_each.max(args.cpus),
        line: outside,
        ..Hardware::default()
    };
    let image = image::make(kind, Some(&ramdisk), "run")?;
    let program = outside.then(Relay::program).transpose()?;
    let mut machine = match place {
        Place::Bochs => Machine::bochs(&image, args.model, hardware)?,
        Place::Qemu => Machine::qemu(&image, kind, processor, hardware)?,
    };
    let relay = program.zip(machine.take_line());
    let relay = relay.map(|(program, line)| Relay::start(&program, line, &of_relay));
    let _relay = relay.transpose()?;
    for (number, disk) in args.disk.iter().enumerate() {
        eprintln!("  disks/{number} is a copy of {}", disk.trim_end_matches(":ro"));
    }
    eprintln!("  running {what} in {}", machine.named);
    let input = if example.is_some() {
        Input::Nothing
    } else {
        Input::Standard
    };
    machine.run(None, input, io::stdout(), |line| eprintln!("{line}"))
}

/// The ramdisk for examples, which bring their own guests.
fn example_ramdisk(names: &[&str], set: &[String]) -> Result<Vec<u8>> {
    let mut ramdisk = Ramdisk::default();
    let mut lines = Vec::new();
    for name in names {
        lines.extend([format!("guest={name}"), format!("x-example={name}")]);
        lines.extend(set.iter().cloned());
        lines.push(String::new());
    }
    ramdisk.command(&lines)?;
    ramdisk.finish(&image::kernel_bytes()?)
}

/// What of the host a guest gets a copy of, by the options' values.
#[derive(Clone, Copy, Default)]
struct Files<'a> {
    disks: &'a [String],
    emulated_disk: Option<&'a str>,
    folders: &'a [String],
}

/// The ramdisk for one guest, on each of so many processors, and its disks and folders.
fn ramdisk(
    app: &str,
    set: &[String],
    Files {
        disks,
        emulated_disk,
        folders,
    }: Files<'_>,
    arguments: &[String],
    processors: u32,
) -> Result<Vec<u8>> {
    let guest = guests::resolve(app)?;
    let mut ramdisk = Ramdisk::default();
    let name = ramdisk.guest(&guest)?;
    let mut of_files = Vec::new();
    // Two disks may have the same name, in different folders.
    let numbered = (0..)
        .zip(disks)
        .map(|(number, disk)| ("disk", number.to_string(), disk.as_str()));
    let emulated = emulated_disk.map(|disk| ("emulated-disk", "emulated".to_owned(), disk));
    for (key, name, disk) in numbered.chain(emulated) {
        let (path, ro) = match disk.strip_suffix(":ro") {
            Some(path) => (path, ":ro"),
            None => (disk, ""),
        };
        let content = fs::read(path).map_err(Error::file("read", Path::new(path)))?;
        let file = format!("disks/{name}");
        ramdisk.add(&file, &content)?;
        of_files.push(format!("{key}={file}{ro}"));
    }
    let mut names: Vec<String> = Vec::new();
    for folder in folders {
        let Folder {
            name,
            archive,
            writable,
        } = Folder::pack(folder)?;
        if names.contains(&name) {
            return Err(Error::Usage(format!(
                "two folders are called {name}, and the guest could not tell them apart: rename one"
            )));
        }
        let file = format!("folders/{name}");
        ramdisk.add(&file, &archive)?;
        of_files.push(format!("folder={file}{}", if writable { ":rw" } else { "" }));
        names.push(name);
    }
    let mut lines = Vec::new();
    for processor in 0..processors {
        lines.push(format!("guest={name}"));
        lines.extend(of_files.iter().cloned());
        lines.extend(set.iter().cloned());
        if processor > 0 {
            // There is one line to type on.
            lines.extend([format!("on={processor}"), "input=none".into()]);
        }
        lines.extend(arguments.iter().map(|argument| format!("arg={argument}")));
        lines.push(String::new());
    }
    ramdisk.command(&lines)?;
    ramdisk.finish(&image::kernel_bytes()?)
}
