//! Bochs as the machine: an emulated Intel processor with VMX.
//!
//! Debian's build shows its screen in a window alone, so an X server without a screen runs beside it;
//! and it has the debugger, which a file of commands tells to go on.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use clap::ValueEnum;

use super::{
    Hardware,
    emulator::{self, Machine},
};
use crate::{
    command,
    error::{Error, Result},
    tools,
};

/// The size of a cylinder, of which a disk has a whole number: 16 heads, 63 sectors.
const CYLINDER: u64 = 16 * 63 * 512;

/// How many instructions Bochs takes for a second of its machine. A byte on a serial line takes 87 us of that, and of
/// this machine's time as long as so many instructions take: with a line that is used, a slower machine is done sooner.
const FAST: u32 = 200_000_000;
const SLOW: u32 = 20_000_000;

/// The firmware of Debian's package bochsbios.
const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
/// What it does to IA32_FEATURE_CONTROL (SDM volume 3C, section 25.7), on each of its ways: `rdmsr; or eax, 5; wrmsr`,
/// by which VMX is allowed outside SMX operation, and the register locked.
const ALLOWS_VMX: [&[u8]; 2] = [
    &[0x0f, 0x32, 0x83, 0xc8, 5, 0x0f, 0x30],
    &[0x0f, 0x32, 0x66, 0x83, 0xc8, 5, 0x0f, 0x30],
];

/// The processor that Bochs shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Model {
    /// EPT with accessed and dirty bits, VPID, unrestricted guest, VMFUNC, #VE.
    Haswell,
    /// The same with PML and TSC scaling.
    SkylakeX,
    /// Another revision of the VMCS.
    Tigerlake,
    /// No VMX at all.
    #[value(skip)]
    WithoutVmx,
    /// VMX without EPT.
    #[value(skip)]
    WithoutEpt,
    /// EPT without unrestricted guest.
    #[value(skip)]
    WithoutUnrestrictedGuest,
    /// VMX, which the firmware locks off.
    #[value(skip)]
    LockedOff,
    /// VMX, of which the firmware has not settled who may use it.
    #[value(skip)]
    Unsettled,
}

impl Model {
    /// What Bochs calls it.
    const fn word(self) -> &'static str {
        match self {
            Self::Haswell => "corei7_haswell_4770",
            Self::SkylakeX | Self::LockedOff | Self::Unsettled => "corei7_skylake_x",
            Self::Tigerlake => "tigerlake",
            Self::WithoutVmx => "p4_prescott_celeron_336",
            Self::WithoutEpt => "core2_penryn_t9600",
            Self::WithoutUnrestrictedGuest => "corei5_lynnfield_750",
        }
    }

    /// For people.
    fn named(self) -> String {
        let firmware = match self {
            Self::LockedOff => ", with VMX locked off by its firmware",
            Self::Unsettled => ", whose firmware leaves VMX unsettled",
            _ => "",
        };
        format!("Bochs, which emulates {}{firmware}", self.word())
    }
}

impl Machine {
    /// Starts Bochs with this image, by BIOS, and this hardware.
    ///
    /// # Errors
    ///
    /// If it is not there, or does not start.
    pub(crate) fn bochs(image: &Path, model: Model, hardware: Hardware) -> Result<Self> {
        let program = tools::debian("bochs", "bochs")?;
        for (file, package) in [
            (BIOS, "bochsbios"),
            ("/usr/share/bochs/VGABIOS-lgpl-latest", "vgabios"),
            ("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_x_gui.so", "bochs-x"),
        ] {
            tools::debian_file(file, package)?;
        }
        pad(image)?;
        let place = image.with_extension("bochs");
        fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
        let at = |name: &str| place.join(name);
        let (listener, console) = emulator::listen()?;
        let line = hardware.line.then(emulator::listen).transpose()?;
        let firmware = firmware(model, &at("firmware"))?;
        let ports = [Some(console), line.as_ref().map(|(_, port)| *port)];
        let settings = settings(&firmware, image, model, hardware, ports, &at("log"));
        for (name, content) in [("bochsrc", settings.as_str()), ("commands", "c\n")] {
            fs::write(at(name), content).map_err(Error::file("write", &at(name)))?;
        }
        let (screen, display) = screen()?;
        let mut bochs = Command::new(&program);
        bochs
            .arg("-q")
            .arg("-f")
            .arg(at("bochsrc"))
            .arg("-rc")
            .arg(at("commands"))
            .arg("-unlock")
            .env("DISPLAY", display)
            .env_remove("XAUTHORITY");
        let errors = fs::File::create(at("stderr")).map_err(Error::file("create", &at("stderr")))?;
        bochs.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        command::dies_with_us(&mut bochs);
        let child = bochs.spawn().map_err(|source| Error::Start {
            program: program.display().to_string(),
            source,
        })?;
        let mut machine = Self {
            console: Box::new(std::io::empty()),
            line: Box::new(std::io::sink()),
            far: None,
            words: Box::new(std::io::empty()),
            children: vec![child, screen],
            log: at("log"),
            named: model.named(),
        };
        let console = machine.accept(&listener)?;
        if let Ok(line) = console.try_clone() {
            machine.line = Box::new(line);
        }
        machine.console = Box::new(console);
        if let Some((listener, _)) = line {
            machine.far = Some(machine.accept(&listener)?);
        }
        let words = machine.children[0].stdout.take();
        machine.words = Box::new(words.expect("it is piped"));
        Ok(machine)
    }
}

/// An X server without a screen, and its display.
fn screen() -> Result<(Child, String)> {
    let program = tools::debian("Xvfb", "xvfb")?;
    let mut xvfb = Command::new(&program);
    xvfb.args([
        "-displayfd",
        "1",
        "-screen",
        "0",
        "1280x1024x24",
        "-nolisten",
        "tcp",
        "-noreset",
    ]);
    xvfb.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command::dies_with_us(&mut xvfb);
    let start_error = |source| Error::Start {
        program: program.display().to_string(),
        source,
    };
    let mut child = xvfb.spawn().map_err(start_error)?;
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    output.read_line(&mut line).map_err(start_error)?;
    let number = line.trim();
    if number.is_empty() {
        drop(child.wait());
        return Err(Error::Missing("Xvfb found no display for Bochs to draw on".into()));
    }
    Ok((child, format!(":{number}")))
}

/// The firmware to boot with: a copy of Bochs' own that locks VMX off or leaves it unsettled, where the model wants that.
fn firmware(model: Model, copy: &Path) -> Result<PathBuf> {
    let bits = match model {
        // Locked, and nothing else.
        Model::LockedOff => 1,
        Model::Unsettled => 0,
        _ => return Ok(BIOS.into()),
    };
    let mut bytes = fs::read(BIOS).map_err(Error::file("read", Path::new(BIOS)))?;
    for pattern in ALLOWS_VMX {
        let at = bytes.windows(pattern.len()).position(|window| window == pattern);
        let five = pattern.iter().position(|byte| *byte == 5);
        let (Some(at), Some(five)) = (at, five) else {
            return Err(Error::Missing(format!(
                "{BIOS} does not set IA32_FEATURE_CONTROL as that of bochsbios 2.7 does"
            )));
        };
        bytes[at + five] = bits;
    }
    fs::write(copy, bytes).map_err(Error::file("write", copy))?;
    Ok(copy.to_owned())
}

/// Makes a disk of whole cylinders.
fn pad(image: &Path) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(image);
    let file = file.map_err(Error::file("open", image))?;
    let length = file.metadata().map_err(Error::file("read", image))?.len();
    file.set_len(length.next_multiple_of(CYLINDER))
        .map_err(Error::file("write", image))
}

/// The file of settings.
fn settings(
    firmware: &Path,
    image: &Path,
    model: Model,
    hardware: Hardware,
    serial_ports: [Option<u16>; 2],
    log: &Path,
) -> String {
    let Hardware { memory, processors, .. } = hardware;
    let (firmware, image, log, model) = (firmware.display(), image.display(), log.display(), model.word());
    let serial_ports = (1..).zip(serial_ports).filter_map(|(number, port)| {
        let port = port?;
        Some(format!(
            "com{number}: enabled=1, mode=socket-client, dev=127.0.0.1:{port}\n"
        ))
    });
    let serial_ports: String = serial_ports.collect();
    let ips = if hardware.line { SLOW } else { FAST };
    format!(
        "cpu: model={model}, count={processors}, ips={ips}, reset_on_triple_fault=0\n\
         memory: guest={memory}, host={memory}\n\
         romimage: file=\"{firmware}\"\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         ata0-master: type=disk, path=\"{image}\", mode=flat\n\
         boot: disk\n\
         display_library: x\n\
         {serial_ports}port_e9_hack: enabled=1\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
         speaker: enabled=0\n\
         log: {log}\n\
         panic: action=fatal\n"
    )
}
