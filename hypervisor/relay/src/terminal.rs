//! A serial device as a line: 115200 baud, 8N1, and every byte as it is.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::termios::{ControlModes, OptionalActions, SpecialCodeIndex, speed, tcgetattr, tcsetattr};

/// Makes it so; what is no serial device is refused.
pub(crate) fn make_transparent(line: BorrowedFd<'_>) -> io::Result<()> {
    let mut termios = tcgetattr(line)?;
    termios.make_raw();
    // Nobody asks a modem, and neither end stops the other: only one speaks at a time.
    termios.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    termios.control_modes -= ControlModes::CRTSCTS | ControlModes::CSTOPB;
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios.set_speed(speed::B115200)?;
    tcsetattr(line, OptionalActions::Flush, &termios)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn every_byte_comes_through_as_it_is() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = std::ffi::OsStr::from_bytes(name.as_bytes());
        let mut line = OpenOptions::new().read(true).write(true).open(path).unwrap();
        make_transparent(line.as_fd()).unwrap();
        let mut master = File::from(master);
        let every: Vec<u8> = (0..=u8::MAX).collect();
        let mut come = vec![0; every.len()];
        master.write_all(&every).unwrap();
        line.read_exact(&mut come).unwrap();
        assert_eq!(come, every);
        line.write_all(&every).unwrap();
        come.fill(0);
        master.read_exact(&mut come).unwrap();
        assert_eq!(come, every);
    }

    #[test]
    fn what_is_no_serial_device_is_refused() {
        let file = File::open("/dev/null").unwrap();
        assert!(make_transparent(file.as_fd()).is_err());
    }
}
