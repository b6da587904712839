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
