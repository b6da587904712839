//! Writes a few inputs for each target into `corpus/`, so that a fuzzer begins with rings that
//! make sense: `cargo run --example seeds`.

use std::fs;
use std::path::Path;

use chiton_bare::line::{Answer, Call, News, Outside, VERSION};
use chiton_bench::environment::Environment;
use chiton_bench::run::{Case, Fact, Kind, Machine, Run, Samples, Unit};
use chiton_core::devices::vsock::Socket;
use chiton_core::state::Writer;
use chiton_fuzz::script::PACKED;
use chiton_kvm::snapshot::format::{self, Description, DiskFacts, Pages};
use chiton_shared::manifest::{Feature, Manifest, Ring};
use chiton_shared::virtio::mmio::Register;
use chiton_shared::virtio::ring::QueueConfig;
use chiton_shared::virtio::vsock::{HOST_CID, Header, TYPE_STREAM};

/// What a measuring guest prints.
const RECORDS: &str = "\
[some text of the machine]
@measure 1 tsc_khz=2445405 ring=3 processors=1
@begin cpuid repeat=0
@samples 10 20x2
@samples 20 30
@end cpuid operations=1 warmup=5 count=5 sum=100
@begin cpuid repeat=1
@samples 11
@end cpuid operations=1 warmup=5 count=1 sum=11
@skip vmcall it needs ring 0
@done
";

/// What a machine asks on its line, and what it is answered: frames, each behind its length.
fn line() -> std::io::Result<()> {
    let socket = Socket(1);
    let calls = [
        Call::Hello,
        Call::NextEvent,
        Call::Connect(7),
        Call::Accepted(socket, 8),
        Call::Read(socket, 1024),
        Call::Write(socket, b"bytes"),
        Call::Finish(socket),
        Call::Close(socket),
        Call::Receive,
        Call::Send(b"a frame"),
    ];
    let outside = Outside {
        version: VERSION,
        sockets: Some(3),
        link: Some(([2, 0, 0, 0, 0, 1], 1500)),
        environment: b"A=b",
    };
    let news = News {
        event: true,
        ..News::NONE
    };
    let answers = [
        Answer::Outside(outside),
        Answer::Asked(socket, 5000),
        Answer::Socket(Socket(2)),
        Answer::Nothing,
        Answer::Never,
    ];
    let mut asked = vec![0];
    for call in calls {
        let mut body = Vec::new();
        call.write(&mut body);
        asked.push(body.len() as u8);
        asked.extend(body);
    }
    let mut answered = vec![0];
    for answer in answers {
        let mut body = Vec::new();
        answer.write(news, &mut body);
        answered.push(body.len() as u8);
        answered.extend(body);
    }
    save("line", "asked", &asked)?;
    save("line", "answered", &answered)?;
    save("line", "noise", b"\x7e\x7d\x7e\x7d\x5d\x01\x02\x7e\x7e")
}

/// A byte that says which part of a snapshot it is, then that part.
fn snapshot() -> std::io::Result<()> {
    let part = |name, number: u8, bytes: &[u8]| save("snapshot", name, &[&[number], bytes].concat());
    let disk = DiskFacts {
        path: "/srv/disk.img".into(),
        sectors: 2048,
        read_only: true,
        queues: 1,
        written: 5,
    };
    let full = Description {
        name: "counter".into(),
        memory: 3 << 20,
        processors: 2,
        ring: None,
        interrupts: None,
        tsc_khz: 2_000_000,
        cpuid: Vec::new(),
        disks: vec![disk],
        balloon: Some(0),
        devices: vec![vec![1, 2, 3]],
        vcpus: vec![(0, vec![1; 8]), (1, Vec::new())],
        parent: None,
        pages: Pages::All(vec![1, 2, 3]),
    };
    let changed = Description {
        parent: Some("/srv/full.snap".into()),
        pages: Pages::Changed(vec![
            format::Run {
                first: 1,
                count: 2,
                crc: 3,
            },
            format::Run {
                first: 7,
                count: 1,
                crc: 4,
            },
        ]),
        ..full.clone()
    };
    let sized = |description: &Description, memory: u64| [&memory.to_le_bytes()[..], &description.to_bytes()].concat();
    part("full", 1, &sized(&full, 3 << 20))?;
    part("changed", 1, &sized(&changed, 3 << 12))?;
    for (name, number, device, queues) in [("console", 3, 3_u32, 2_u32), ("entropy", 4, 4, 1), ("balloon", 5, 5, 4)] {
        let mut state = Writer::new();
        // Kind, status, interrupt, generation, two selectors, the features: VERSION_1.
        for word in [device, 0b1111, 0, 0, 0, 0] {
            state.u32(word);
        }
        state.u64(1 << 32);
        state.flag(false);
        state.u32(0);
        state.u32(queues);
        for queue in 0..u64::from(queues) {
            let at = 0x10_0000 + queue * 0x1000;
            state.u16(8);
            for address in [at, at + 0x100, at + 0x200] {
                state.u64(address);
            }
            state.flag(true);
            state.u16(9);
            state.u16(0);
        }
        let rest: &[u8] = match number {
            3 => &[5, 0, 0, 0, 0, 0, 0, 0],
            5 => &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            _ => &[],
        };
        state.raw(rest);
        part(name, number, &state.into_bytes())?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    images()?;
    control()?;
    snapshot()?;
    measurement()?;
    save(
        "manifest",
        "user",
        &Manifest::new(Ring::User).require(Feature::CONSOLE).to_bytes(),
    )?;
    save("records", "two_repeats", RECORDS.as_bytes())?;
    save("records", "lost_in_a_case", &RECORDS.as_bytes()[..RECORDS.len() - 70])?;
    save("acpi", "two_processors", &firmware())?;
    line()?;
    // A byte that says how the processor tells of it, then the instruction.
    let instructions: [(&str, &[u8]); 6] = [
        ("store_immediate", &[1, 0x48, 0xc7, 0x47, 8, 1, 0, 0, 0]),
        ("load_sign_extended", &[0, 0x0f, 0xbe, 0x04, 0x25, 0, 0, 0, 0xd0]),
        ("update", &[1, 0xf0, 0x83, 0x4f, 4, 1]),
        ("absolute", &[0, 0xa1, 0, 0, 0, 0xd0, 0, 0, 0, 0]),
        ("repeated_store", &[0x33, 0xf3, 0xab]),
        ("copy_from", &[8, 0x65, 0xa5]),
    ];
    for (name, bytes) in instructions {
        save("decode", name, bytes)?;
    }
    save("manifest", "another_abi", &[2; Manifest::SIZE])?;

    save(
        "ring_device",
        "plain",
        &scripted(&[2, 0, 0, 0, 0, 2, 0, 9, 0, 0, 0, 4, 5, 0], &ring(false)),
    )?;
    save(
        "ring_device",
        "indirect",
        &scripted(&[2, 0, 0, 3, 0, 2, 0, 9, 0, 0, 0, 4, 6, 5, 0], &ring(true)),
    )?;

    let script = [2, 0, 0, 3, 0, 0, 2, 1, 9, 0, 0, 0, 4, 6, 2, 0, 0, 0, 0, 0, 4, 5, 0];
    save("packed_device", "chain_and_table", &scripted(&script, &packed()))?;

    // Size 4, both features; one chain of a readable and a writable buffer there and back, then
    // one through a table.
    let add = |indirect| [0, 2, 0, 1, 0, 0, 0, 0, 2, 0, 0, 1, indirect];
    let back = |index| [4, 6, index, 0, 1, 2, 5];
    save(
        "ring_driver",
        "there_and_back",
        &[[2, 3].as_slice(), &add(0), &back(0), &add(1), &back(1)].concat(),
    )?;
    // The same in a packed ring, and once more in order, both chains used by one descriptor.
    let used = |slot, id| [4, 6, slot, id, 1, 1, 2, 5];
    save(
        "packed_driver",
        "there_and_back",
        &[[3, 3].as_slice(), &add(0), &used(0, 0), &add(1), &used(2, 0)].concat(),
    )?;
    save(
        "packed_driver",
        "in_order",
        &[[3, 7].as_slice(), &add(0), &add(1), &used(0, 2), &[2]].concat(),
    )?;

    // Backend's first two bytes, then: an added chain of writable (2) or readable (0) buffers, and
    // the device at work.
    let chain = |queue, buffers: &[(u8, u16, u16)]| {
        let mut bytes = vec![3, queue, buffers.len() as u8, 0];
        for (i, (page, len, flags)) in buffers.iter().enumerate() {
            let next = u16::from(i + 1 < buffers.len());
            bytes.push(*page);
            bytes.extend(u32::from(*len).to_le_bytes());
            bytes.extend((flags | next).to_le_bytes());
        }
        bytes.push(6);
        bytes
    };
    save(
        "entropy",
        "two_buffers",
        &scripted(&[&[9, 0][..], &chain(0, &[(16, 64, 2), (17, 9, 2)])].concat(), &[]),
    )?;
    let talk = [
        &[7, 0][..],
        &chain(0, &[(16, 64, 2)]),
        &chain(1, &[(17, 30, 0), (18, 5, 0)]),
        &[6, 6],
    ]
    .concat();
    save("console", "both_ways", &scripted(&talk, &[]))?;
    // Room for messages; the device is ready, port 1 is ready and open; input and output of port 1.
    let byte = |at: u16, value: u64| [&[0][..], &at.to_le_bytes(), &value.to_le_bytes()].concat();
    let ports = [
        &[7, 0, 8, 0, 9, 0][..],
        &chain(2, &[(32, 128, 2)]),
        &chain(2, &[(34, 128, 2)]),
        &chain(2, &[(36, 128, 2)]),
        &byte(0x1006, 1),
        &chain(3, &[(16, 8, 0)]),
        &byte(0x1100, 1),
        &byte(0x1104, 0x1_0003),
        &chain(3, &[(17, 8, 0)]),
        &byte(0x1200, 1),
        &byte(0x1204, 0x1_0006),
        &chain(3, &[(18, 8, 0)]),
        &chain(4, &[(40, 64, 2)]),
        &chain(5, &[(42, 30, 0), (43, 5, 0)]),
        &[6, 6],
    ]
    .concat();
    save("console_ports", "handshake", &scripted(&ports, &[]))?;
    // Headers of zeros and ones; room for a frame; a frame of 60 bytes.
    let frames = [
        &[8, 0][..],
        &chain(0, &[(16, 2000, 2), (24, 100, 2)]),
        &chain(1, &[(40, 12, 0), (41, 60, 0)]),
        &chain(1, &[(40, 72, 0)]),
        &[6, 6],
    ]
    .concat();
    save("net", "both_ways", &scripted(&frames, &[]))?;
    // Two pairs: a command of zeros and one that is too short, and frames of the second pair.
    let control = [
        &[2, 0][..],
        &chain(4, &[(16, 4, 0), (17, 1, 2)]),
        &chain(4, &[(16, 1, 0), (17, 1, 2)]),
        &chain(2, &[(24, 2000, 2)]),
        &chain(3, &[(40, 72, 0)]),
        &[4, 6],
    ]
    .concat();
    save("net", "control", &scripted(&control, &[]))?;
    // Page numbers of zero, a long list of them, pages taken back, statistics, and a free range.
    let balloon = [
        &[9, 0][..],
        &chain(0, &[(16, 64, 0), (17, 2048, 0)]),
        &chain(1, &[(16, 64, 0)]),
        &chain(2, &[(18, 40, 0)]),
        &chain(3, &[(18, 8192, 2)]),
    ]
    .concat();
    save("balloon", "there_and_back", &scripted(&balloon, &[]))?;
    // The header at page 16 is zero: read sector 0. Then its first byte says what else to do.
    let request = |kind, data: (u8, u16, u16)| {
        [
            &[0, 0, 0x10, kind, 0, 0, 0, 0, 0, 0, 0][..],
            &chain(0, &[(16, 16, 0), data, (30, 1, 2)]),
        ]
        .concat()
    };
    let requests = [
        &request(0, (17, 1024, 2))[..],
        &request(1, (17, 512, 0)),
        &request(4, (17, 0, 0)),
        &request(8, (17, 20, 2)),
        &request(3, (17, 1, 2)),
        // Segments are zero: nothing, from sector 0 on.
        &request(11, (18, 32, 0)),
        &request(13, (18, 16, 0)),
    ];
    let requests = requests.concat();
    save(
        "block",
        "every_request",
        &scripted(&[&[200][..], &requests[..]].concat(), &[]),
    )?;
    // The same on a disk of two queues that ends things later, and a reset meanwhile.
    let late = [
        &[0b1100_1110, 1, 2, 3, 4][..],
        &requests[..],
        &[1, 17, 0, 0, 0, 0, 5, 0],
        &requests[..],
    ]
    .concat();
    save("block", "late", &scripted(&late, &[]))?;
    // A packet at page 40 of a guest that asks for port 0 of the host, then one with four bytes.
    let packet = |op: u8, len: u8| {
        let mut script = Vec::new();
        let header = Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            len: len.into(),
            kind: TYPE_STREAM,
            op: op.into(),
            buf_alloc: 4096,
            ..Header::default()
        };
        for (i, bytes) in header.to_bytes().chunks(8).enumerate() {
            // Later writes repair what earlier ones wrote too far.
            for (j, byte) in bytes.iter().enumerate() {
                let at = 0x2800 + 8 * i as u16 + j as u16;
                script.push(0);
                script.extend(at.to_le_bytes());
                script.extend([*byte, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        script.extend(chain(1, &[(40, 44 + u16::from(len), 0)]));
        script
    };
    let room = chain(0, &[(48, 0x400, 2), (52, 0x400, 2)]);
    let stream = [
        &[5, 0][..],
        &room,
        &packet(1, 0),
        &room,
        &packet(5, 4),
        &room,
        &packet(4, 0),
    ]
    .concat();
    save("vsock", "a_stream", &scripted(&stream, &[]))?;
    // Messages from page 32 on, each at its own page, with room for the answer at page 48.
    let fields =
        |fields: &[u8], tag: u8, kind: u8| [&[fields.len() as u8 + 7, 0, 0, 0, kind, tag, 0][..], fields].concat();
    let messages = [
        fields(b"\0\x20\0\0\x08\x009P2000.L", 0, 100),
        fields(b"\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 1, 104),
        fields(b"\0\0\0\0\x01\0\0\0\x01\0\x01\0x", 2, 110),
        fields(b"\x01\0\0\0\0\0\0\0", 3, 12),
        fields(b"\x01\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0", 4, 116),
        fields(b"\x01\0\0\0\0\0\0\0\0\0\0\0\x40\x02\0\0", 5, 40),
        fields(b"\0\0\0\0\0\0\0\0\0\0\0\0", 6, 24),
        fields(b"\x01\0\0\0", 7, 120),
    ];
    let (mut script, mut image) = (vec![200], vec![0; 0x3000]);
    for (i, message) in messages.iter().enumerate() {
        image[0x2000 + i * 0x100..][..message.len()].copy_from_slice(message);
        script.extend(chain(0, &[(32 + i as u8, message.len() as u16, 0), (48, 0x400, 2)]));
    }
    save("p9", "a_session", &scripted(&script, &image))?;
    save("emulated_disk", "words", &scripted(&emulated_words(), &[]))?;
    let (script, image) = emulated_master();
    save("emulated_disk", "bus_master", &scripted(&script, &image))?;
    let (script, image) = emulated_frames();
    save("emulated_nic", "both_ways", &scripted(&script, &image))?;
    save("mmio", "negotiation", &scripted(&negotiation(), &[]))
}

/// A write of a byte, or of four, to the register at this place of a target's list.
fn byte(register: u8, value: u8) -> [u8; 6] {
    [5, register, value, 0, 0, 0]
}

fn word(register: u8, value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [21, register, a, b, c, d]
}

/// Two sectors in and out through the data register, and what the disk says of itself.
fn emulated_words() -> Vec<u8> {
    let mut script = vec![0, 0];
    for command in [0x20, 0x30, 0xEC] {
        script.extend([byte(6, 0x40), byte(2, 2), byte(3, 7), byte(7, command)].concat());
        script.extend([11, 0xFF, 2]);
    }
    script
}

/// A sector each way, from and to a region that the table at the beginning of memory names.
fn emulated_master() -> (Vec<u8>, Vec<u8>) {
    use chiton_shared::emulated::disk::Region;
    let region = Region {
        address: 0x10_1000,
        len: 512,
        last: true,
    };
    let mut script = vec![0, 0];
    script.extend([word(11, 0x10_0000), byte(6, 0x40), byte(2, 1)].concat());
    script.extend([byte(9, 8), byte(7, 0xC8), byte(9, 9), byte(10, 6)].concat());
    script.extend([byte(9, 0), byte(7, 0xCA), byte(9, 1)].concat());
    (script, region.to_bytes().to_vec())
}

/// Rings of eight at the beginning of memory; frames in and out.
fn emulated_frames() -> (Vec<u8>, Vec<u8>) {
    use chiton_shared::emulated::nic::Descriptor;
    let descriptor = |address, len| Descriptor {
        address,
        len,
        command: Descriptor::EOP | Descriptor::RS,
        status: 0,
    };
    let mut image = descriptor(0x10_1000, 0).to_bytes().repeat(16);
    image.extend(descriptor(0x10_2000, 60).to_bytes().repeat(8));
    let mut script = vec![0, 0];
    script.extend(
        [
            word(9, 0x10_0000),
            word(11, 128),
            word(8, 2),
            word(13, 7),
            word(6, 0x80),
        ]
        .concat(),
    );
    script.extend([1, 20, 0]);
    script.extend(
        [
            word(15, 0x10_0100),
            word(16, 128),
            word(14, 2),
            word(18, 3),
            word(18, 7),
        ]
        .concat(),
    );
    script.extend([1, 20, 0]);
    (script, image)
}

/// A script with its length, and what memory holds.
fn scripted(script: &[u8], image: &[u8]) -> Vec<u8> {
    [&(script.len() as u16).to_le_bytes(), script, image].concat()
}

/// Memory with a queue of four descriptors, one chain available, direct or in a table.
fn ring(indirect: bool) -> Vec<u8> {
    let mut memory = vec![0; 0x140];
    let (config, _) = QueueConfig::packed_at(0, 4);
    let mut put = |at: u64, bytes: &[u8]| memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
    let descriptor = |address: u64, len: u32, flags: u16, next: u16| {
        [
            &address.to_le_bytes()[..],
            &len.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ]
        .concat()
    };
    let table = if indirect { 0x100 } else { config.descriptors };
    put(table, &descriptor(0x800, 16, 1, 1));
    put(table + 16, &descriptor(0x900, 16, 2, 0));
    if indirect {
        put(config.descriptors, &descriptor(table, 32, 4, 0));
    }
    put(config.driver + 2, &[1, 0]);
    memory
}

/// Memory with a packed queue of four descriptors: a chain of two, and a table of two.
fn packed() -> Vec<u8> {
    let mut memory = vec![0; 0x140];
    let mut put = |at: usize, address: u64, len: u32, id: u16, flags: u16| {
        memory[at..at + 8].copy_from_slice(&address.to_le_bytes());
        memory[at + 8..at + 12].copy_from_slice(&len.to_le_bytes());
        memory[at + 12..at + 14].copy_from_slice(&id.to_le_bytes());
        memory[at + 14..at + 16].copy_from_slice(&flags.to_le_bytes());
    };
    put(0, 0x800, 16, 0, 0x81);
    put(16, 0x900, 16, 7, 0x82);
    put(32, 0x100, 32, 9, 0x84);
    put(0x100, 0x800, 16, 0, 0);
    put(0x110, 0x900, 16, 0, 2);
    memory
}

/// The initialization of section 3.1, by registers, up to a kick.
fn negotiation() -> Vec<u8> {
    use Register::{
        DriverFeatures, DriverFeaturesSel, QueueDescLow, QueueDeviceLow, QueueDriverLow, QueueNotify, QueueProcessor,
        QueueReady, QueueSel, QueueSize, Status,
    };
    let writes = [
        (Status, 1),
        (Status, 3),
        (DriverFeaturesSel, 1),
        (DriverFeatures, 1),
        (Status, 11),
        (QueueSel, 1),
        (QueueSize, 8),
        (QueueDescLow, 0x10_2000),
        (QueueDriverLow, 0x10_2100),
        (QueueDeviceLow, 0x10_2200),
        (QueueReady, 1),
        (Status, 15),
        (QueueNotify, 1),
        (QueueProcessor, 0x2_0001),
        (QueueProcessor, 0x3_0000),
    ];
    let mut script = vec![1];
    for (register, value) in writes {
        let number = Register::ALL.iter().position(|r| *r == register).unwrap_or_default();
        script.extend([1, number as u8]);
        script.extend(u32::to_le_bytes(value));
    }
    script.extend([5, 1, 6]);
    script
}

fn save(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    if DEVICES.contains(&target) {
        let mut packed = bytes.to_vec();
        packed[1] |= (PACKED >> 8) as u8;
        fs::write(folder.join(format!("{name}_packed")), packed)?;
    }
    fs::write(folder.join(name), bytes)
}

/// Targets whose guests may have packed queues too.
const DEVICES: [&str; 8] = [
    "console",
    "console_ports",
    "net",
    "balloon",
    "block",
    "vsock",
    "p9",
    "entropy",
];

/// A run with a case that was measured and one that was not, without what belongs to this machine.
fn measurement() -> std::io::Result<()> {
    let absent = || Fact::Absent("not asked".into());
    let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
    run.started = "2026-01-01T00:00:00Z".into();
    run.chiton.commit = absent();
    run.environment = Environment {
        cpu: absent(),
        processors: absent(),
        smt: absent(),
        microcode: absent(),
        governor: absent(),
        nested: absent(),
        kernel: absent(),
        isolated: absent(),
        clocksource: absent(),
        kvm: absent(),
        limits: absent(),
        load: absent(),
        kvm_parameters: [("kvm.halt_poll_ns".to_owned(), Fact::Known("0".into()))].into(),
        mitigations: [("mds".to_owned(), Fact::Known("Not affected".into()))].into(),
    };
    let samples = [30, 31, 29].map(|value| Samples::of([value, value + 1, 500]));
    let samples = samples
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(std::io::Error::other)?;
    let mut case = Case::measured("cpuid", "instructions", "CPUID", Unit::Ticks, samples);
    case.cause = Some("CPUID".into());
    case.note("a note");
    run.cases.push(case);
    run.cases.push(Case::skipped(
        "wbinvd",
        "instructions",
        "WBINVD",
        Unit::Ticks,
        "not here",
    ));
    save("measurement", "two_cases", run.to_json().as_bytes())?;
    save("measurement", "another_version", br#"{"schema":"chiton-bench/2"}"#)
}

/// Lines for the control socket, behind a byte for the size of the pieces they come in.
fn control() -> std::io::Result<()> {
    save(
        "control",
        "settings",
        b"\0{\"set\":{\"disks\":[{\"number\":0,\"limits\":{\"ops\":{\"per_second\":9,\"burst\":1}}}],\
          \"nets\":[{\"number\":1,\"limits\":{}}],\"balloon\":8388608,\"console\":{\"columns\":80,\"rows\":25}}}\n",
    )?;
    save(
        "control",
        "lines",
        b"\x01{\"query\":{}}\n{\"pause\":{}}\n\n{\"stop\":{\"timeout_ms\":5}}\nnonsense\n{\"resume\":{}}",
    )?;
    save("control", "too_long", &[b' '; 5000])?;
    save(
        "control",
        "state",
        b"\x02{\"state\":{\"paused\":true,\"processors\":[{\"number\":0,\"exits\":{\"doorbell kick\":3}}],\
          \"devices\":[{\"kind\":\"disk\",\"number\":0,\"limits\":{\"bytes\":{\"per_second\":1,\"burst\":2}}}],\
          \"balloon\":{\"target\":1,\"statistics\":{\"age_ms\":2,\"free\":3}}}}",
    )
}

/// Sums are put right; RSDP, XSDT and a MADT of two processors.
fn firmware() -> Vec<u8> {
    let mut memory = vec![0; 0x80 + 36 + 8 + 8 + 16];
    let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RSD PTR ");
    put(15, &[2]);
    put(20, &[36]);
    put(24, &[0x24]);
    put(0x24, b"XSDT");
    put(0x28, &[36 + 8]);
    put(0x24 + 36, &[0x80]);
    put(0x80, b"APIC");
    put(0x84, &[36 + 8 + 8 + 16]);
    put(0x80 + 44, &[0, 8, 0, 0, 1]);
    put(0x80 + 52, &[9, 16, 0, 0, 1, 0, 0, 0, 1]);
    [vec![1], memory].concat()
}

/// A layer with each kind of entry, the documents of an image, and names.
fn images() -> std::io::Result<()> {
    use tar::EntryType as Kind;
    let mut layer = Vec::new();
    let mut entry = |kind: Kind, path: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        layer.extend(header.as_bytes());
        layer.extend(content);
        layer.resize(layer.len().next_multiple_of(512), 0);
    };
    entry(Kind::Directory, "d/", "", b"");
    entry(
        Kind::XHeader,
        "p",
        "",
        b"17 path=d/longer\n29 SCHILY.xattr.user.a=value\n",
    );
    entry(Kind::Regular, "d/f", "", b"content");
    entry(Kind::Symlink, "s", "../../etc", b"");
    entry(Kind::Link, "h", "d/longer", b"");
    entry(Kind::Fifo, "p", "", b"");
    entry(Kind::Regular, "d/.wh..wh..opq", "", b"");
    entry(Kind::Regular, ".wh.gone", "", b"");
    layer.extend([0; 1024]);
    save("image_layer", "each_kind", &layer)?;

    let blob = format!(
        "\"mediaType\":\"x\",\"digest\":\"sha256:{}\",\"size\":1",
        "0".repeat(64)
    );
    let manifest = format!("{{\"schemaVersion\":2,\"config\":{{{blob}}},\"layers\":[{{{blob}}}]}}");
    save("image_documents", "manifest", manifest.as_bytes())?;
    let platform = "\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}";
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{{{blob},{platform}}}]}}");
    save("image_documents", "index", index.as_bytes())?;
    let config = "{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"Env\":[\"A=b\"]},\
                  \"rootfs\":{\"type\":\"layers\",\"diff_ids\":null},\"history\":[{\"empty_layer\":true}]}";
    save("image_documents", "config", config.as_bytes())?;

    save("image_reference", "short", b"hello")?;
    save("image_reference", "registry", b"localhost:5000/a/b_c:1.0-x")?;
    save(
        "image_reference",
        "digest",
        format!("quay.io/a@sha256:{}", "0".repeat(64)).as_bytes(),
    )
}
