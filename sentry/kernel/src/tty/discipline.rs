//! The line discipline N_TTY: editing, echo, signals, output processing
//! (`termios(3)`).
//!
//! Pure state: bytes go in on one side, bytes and signals come out.

use std::collections::VecDeque;

use syscall_tables::abi::{
    InputFlags, LocalFlags, OutputFlags, PktFlags, Signal, Termios, VEOF, VEOL, VEOL2, VERASE,
    VINTR, VKILL, VLNEXT, VMIN, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VTIME, VWERASE,
};

/// Bytes of input kept for the reader (`N_TTY_BUF_SIZE`).
const INPUT_LIMIT: usize = 4096;
/// Bytes of output kept for the master's reader.
const OUTPUT_LIMIT: usize = 64 << 10;
/// A disabled control character (`_POSIX_VDISABLE`).
const DISABLED: u8 = 0;
/// Columns between tab stops.
const TAB: usize = 8;

/// Input that one read may take at most.
struct Chunk {
    bytes: VecDeque<u8>,
    /// Ended by newline, EOL or EOF: a read stops here even if it is empty.
    complete: bool,
}

/// The state of one terminal.
pub struct Discipline {
    termios: Termios,
    /// Finished lines, or raw bytes.
    input: VecDeque<Chunk>,
    /// The line being edited.
    line: Vec<u8>,
    /// The next byte is taken literally (`VLNEXT`).
    literal_next: bool,
    /// Where the cursor is, and where it was when the line began.
    column: usize,
    line_start: usize,
    output: VecDeque<u8>,
    /// Output is held by `^S` or `TCOOFF`.
    stopped: bool,
    /// What a master in packet mode is to be told.
    packet: PktFlags,
}

impl Discipline {
    pub fn new() -> Self {
        Self {
            termios: Termios::INITIAL,
            input: VecDeque::new(),
            line: Vec::new(),
            literal_next: false,
            column: 0,
            line_start: 0,
            output: VecDeque::new(),
            stopped: false,
            packet: PktFlags::empty(),
        }
    }

    pub fn termios(&self) -> Termios {
        self.termios
    }

    /// Changes the settings; input that was typed before stays readable.
    pub fn set_termios(&mut self, termios: Termios) {
        let was_canonical = self.local(LocalFlags::ICANON);
        let had_flow = self.has(InputFlags::IXON);
        self.termios = termios;
        let canonical = self.local(LocalFlags::ICANON);
        if was_canonical && !canonical {
            let mut raw = VecDeque::new();
            for chunk in self.input.drain(..) {
                raw.extend(chunk.bytes);
            }
            raw.extend(self.line.drain(..));
            if !raw.is_empty() {
                self.input.push_back(Chunk {
                    bytes: raw,
                    complete: false,
                });
            }
        } else if !was_canonical && canonical {
            for chunk in &mut self.input {
                chunk.complete = true;
            }
        }
        if had_flow && !self.has(InputFlags::IXON) {
            self.stopped = false;
        }
        let flow = self.has(InputFlags::IXON)
            && self.control(VSTOP) == Some(0x13)
            && self.control(VSTART) == Some(0x11);
        self.packet.set(PktFlags::TIOCPKT_DOSTOP, flow);
        self.packet.set(PktFlags::TIOCPKT_NOSTOP, !flow);
    }

    fn has(&self, flag: InputFlags) -> bool {
        InputFlags::from_bits_retain(self.termios.c_iflag).contains(flag)
    }

    pub fn local(&self, flag: LocalFlags) -> bool {
        LocalFlags::from_bits_retain(self.termios.c_lflag).contains(flag)
    }

    fn output_flag(&self, flag: OutputFlags) -> bool {
        OutputFlags::from_bits_retain(self.termios.c_oflag).contains(flag)
    }

    /// The control character at `index`, unless it is disabled.
    fn control(&self, index: usize) -> Option<u8> {
        let character = self.termios.c_cc.get(index).copied();
        character.filter(|&character| character != DISABLED)
    }

    fn is(&self, byte: u8, index: usize) -> bool {
        self.control(index) == Some(byte)
    }

    /// Bytes the reader can have now.
    pub fn readable(&self) -> usize {
        self.input.iter().map(|chunk| chunk.bytes.len()).sum()
    }

    /// Whether a read would not wait: a line is there, or `VMIN` bytes are.
    pub fn is_readable(&self) -> bool {
        if self.local(LocalFlags::ICANON) {
            return !self.input.is_empty();
        }
        let least = if self.minimum() > 0 && self.timeout_tenths() > 0 {
            1
        } else {
            self.minimum().max(1)
        };
        self.readable() >= least
    }

    /// `VMIN` in raw mode.
    pub fn minimum(&self) -> usize {
        usize::from(self.termios.c_cc.get(VMIN).copied().unwrap_or(1))
    }

    /// `VTIME` in raw mode.
    pub fn timeout_tenths(&self) -> u8 {
        self.termios.c_cc.get(VTIME).copied().unwrap_or(0)
    }

    /// Takes input for the slave's reader; `None` if it has to wait.
    pub fn read(&mut self, buf: &mut [u8]) -> Option<usize> {
        if self.local(LocalFlags::ICANON) {
            let chunk = self.input.front_mut()?;
            let len = take(&mut chunk.bytes, buf);
            if chunk.bytes.is_empty() {
                self.input.pop_front();
            }
            return Some(len);
        }
        let minimum = self.minimum().min(buf.len());
        if self.readable() < minimum.max(1) {
            return (minimum == 0 && self.timeout_tenths() == 0).then_some(0);
        }
        let mut len = 0;
        while let Some(chunk) = self.input.front_mut() {
            let rest = buf.get_mut(len..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            len += take(&mut chunk.bytes, rest);
            if chunk.bytes.is_empty() {
                self.input.pop_front();
            }
        }
        Some(len)
    }

    /// Whether the master may write more.
    pub fn has_input_room(&self) -> bool {
        // In canonical mode a full line still takes its end.
        self.local(LocalFlags::ICANON) || self.readable() < INPUT_LIMIT
    }

    /// Handles a byte from the master; answers the signal it stands for.
    pub fn input(&mut self, mut byte: u8) -> Option<Signal> {
        if self.has(InputFlags::ISTRIP) {
            byte &= 0x7f;
        }
        if self.literal_next {
            self.literal_next = false;
            self.store(byte);
            self.echo(byte);
            return None;
        }
        if self.has(InputFlags::IXON) {
            if self.is(byte, VSTART) {
                self.start();
                return None;
            }
            if self.is(byte, VSTOP) {
                self.stop();
                return None;
            }
            if self.stopped && self.has(InputFlags::IXANY) {
                self.start();
            }
        }
        if self.local(LocalFlags::ISIG) {
            let signals = [
                (VINTR, Signal::SIGINT),
                (VQUIT, Signal::SIGQUIT),
                (VSUSP, Signal::SIGTSTP),
            ];
            for (index, signal) in signals {
                if self.is(byte, index) {
                    if !self.local(LocalFlags::NOFLSH) {
                        self.flush_input();
                        self.flush_output();
                    }
                    self.echo(byte);
                    return Some(signal);
                }
            }
        }
        match byte {
            b'\r' if self.has(InputFlags::IGNCR) => return None,
            b'\r' if self.has(InputFlags::ICRNL) => byte = b'\n',
            b'\n' if self.has(InputFlags::INLCR) => byte = b'\r',
            _ => {}
        }
        if self.local(LocalFlags::ICANON) {
            self.edit(byte);
        } else {
            if self.readable() < INPUT_LIMIT {
                self.push_raw(byte);
            }
            self.echo(byte);
        }
        None
    }

    fn push_raw(&mut self, byte: u8) {
        match self.input.back_mut() {
            Some(chunk) if !chunk.complete => chunk.bytes.push_back(byte),
            _ => self.input.push_back(Chunk {
                bytes: VecDeque::from([byte]),
                complete: false,
            }),
        }
    }

    fn store(&mut self, byte: u8) {
        if self.local(LocalFlags::ICANON) {
            // The last place is kept for the line's end.
            if self.line.len() < INPUT_LIMIT - 1 {
                self.line.push(byte);
            }
        } else {
            self.push_raw(byte);
        }
    }

    /// Canonical mode.
    fn edit(&mut self, byte: u8) {
        let extended = self.local(LocalFlags::IEXTEN);
        if self.line.is_empty() {
            self.line_start = self.column;
        }
        if self.is(byte, VERASE) {
            self.erase_one();
        } else if self.is(byte, VKILL) {
            self.kill_line(byte);
        } else if extended && self.is(byte, VWERASE) {
            self.erase_word();
        } else if extended && self.is(byte, VLNEXT) {
            self.literal_next = true;
            if self.local(LocalFlags::ECHO) && self.local(LocalFlags::ECHOCTL) {
                self.put(b'^');
                self.put(8);
            }
        } else if extended && self.local(LocalFlags::ECHO) && self.is(byte, VREPRINT) {
            self.reprint(byte);
        } else if byte == b'\n' {
            if self.local(LocalFlags::ECHO) || self.local(LocalFlags::ECHONL) {
                self.emit(b'\n');
            }
            self.finish_line(Some(byte));
        } else if self.is(byte, VEOF) {
            self.finish_line(None);
        } else if self.is(byte, VEOL) || (extended && self.is(byte, VEOL2)) {
            self.echo(byte);
            self.finish_line(Some(byte));
        } else {
            self.store(byte);
            self.echo(byte);
        }
    }

    fn finish_line(&mut self, end: Option<u8>) {
        let mut bytes = VecDeque::from(std::mem::take(&mut self.line));
        bytes.extend(end);
        if self.readable() + bytes.len() <= INPUT_LIMIT {
            self.input.push_back(Chunk {
                bytes,
                complete: true,
            });
        }
    }

    fn erase_one(&mut self) {
        let utf8 = self.has(InputFlags::IUTF8);
        let mut erased = self.line.pop();
        while utf8 && erased.is_some_and(is_continuation) {
            erased = self.line.pop();
        }
        if let Some(byte) = erased {
            self.echo_erase(byte);
        }
    }

    fn erase_word(&mut self) {
        let mut seen_word = false;
        while let Some(&last) = self.line.last() {
            let word = last.is_ascii_alphanumeric() || last == b'_' || last >= 0x80;
            if seen_word && !word {
                break;
            }
            seen_word |= word;
            self.erase_one();
        }
    }

    fn kill_line(&mut self, byte: u8) {
        let whole = [LocalFlags::ECHOK, LocalFlags::ECHOKE, LocalFlags::ECHOE];
        if whole.iter().all(|&flag| self.local(flag)) {
            while !self.line.is_empty() {
                self.erase_one();
            }
            return;
        }
        self.line.clear();
        self.echo(byte);
        if self.local(LocalFlags::ECHOK) {
            self.emit(b'\n');
        }
    }

    fn reprint(&mut self, byte: u8) {
        self.echo(byte);
        self.emit(b'\n');
        for byte in self.line.clone() {
            self.echo(byte);
        }
    }

    fn echo_erase(&mut self, byte: u8) {
        if !self.local(LocalFlags::ECHO) {
            return;
        }
        if !self.local(LocalFlags::ECHOE) {
            if let Some(erase) = self.control(VERASE) {
                self.echo(erase);
            }
            return;
        }
        let width = match byte {
            b'\t' => {
                let before = self.line.clone();
                let at = before.iter().fold(self.line_start, |column, &byte| {
                    column + width(byte, column)
                });
                TAB - at % TAB
            }
            control if is_control(control) && self.local(LocalFlags::ECHOCTL) => 2,
            control if is_control(control) => 0,
            _ => 1,
        };
        for _ in 0..width {
            self.put(8);
            if byte != b'\t' {
                self.put(b' ');
                self.put(8);
            }
            self.column = self.column.saturating_sub(1);
        }
    }

    /// Echoes an input byte.
    fn echo(&mut self, byte: u8) {
        if !self.local(LocalFlags::ECHO) {
            return;
        }
        if self.local(LocalFlags::ECHOCTL) && is_control(byte) && !matches!(byte, b'\t' | b'\n') {
            self.put(b'^');
            self.put(byte ^ 0x40);
            self.column += 2;
        } else {
            self.emit(byte);
        }
    }

    /// Writes the slave's output; answers how many bytes were taken.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for &byte in bytes {
            if self.stopped || self.output.len() + TAB > OUTPUT_LIMIT {
                break;
            }
            self.emit(byte);
            taken += 1;
        }
        taken
    }

    /// Whether the slave may write.
    pub fn has_output_room(&self) -> bool {
        !self.stopped && self.output.len() + TAB <= OUTPUT_LIMIT
    }

    /// One byte of output with its processing.
    fn emit(&mut self, byte: u8) {
        if !self.output_flag(OutputFlags::OPOST) {
            self.put(byte);
            return;
        }
        match byte {
            b'\n' => {
                if self.output_flag(OutputFlags::ONLCR) {
                    self.put(b'\r');
                    self.column = 0;
                }
                if self.output_flag(OutputFlags::ONLRET) {
                    self.column = 0;
                }
                self.put(b'\n');
            }
            b'\r' => {
                if self.output_flag(OutputFlags::ONOCR) && self.column == 0 {
                    return;
                }
                let byte = if self.output_flag(OutputFlags::OCRNL) {
                    b'\n'
                } else {
                    b'\r'
                };
                if byte == b'\r' || self.output_flag(OutputFlags::ONLRET) {
                    self.column = 0;
                }
                self.put(byte);
            }
            b'\t' if self.output_flag(OutputFlags::XTABS) => {
                for _ in 0..width(byte, self.column) {
                    self.put(b' ');
                    self.column += 1;
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                self.put(byte);
            }
            _ => {
                self.column += width(byte, self.column);
                let upper = self.output_flag(OutputFlags::OLCUC);
                self.put(if upper {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                });
            }
        }
    }

    fn put(&mut self, byte: u8) {
        // Echo beyond the limit is dropped, as on a real line.
        if self.output.len() < OUTPUT_LIMIT {
            self.output.push_back(byte);
        }
    }

    /// Takes output for the master's reader.
    pub fn take_output(&mut self, buf: &mut [u8]) -> usize {
        if self.stopped {
            return 0;
        }
        take(&mut self.output, buf)
    }

    /// Bytes the master's reader can have now.
    pub fn output_len(&self) -> usize {
        if self.stopped { 0 } else { self.output.len() }
    }

    /// Holds output (`^S`, `TCOOFF`).
    pub fn stop(&mut self) {
        self.stopped = true;
        self.packet.insert(PktFlags::TIOCPKT_STOP);
        self.packet.remove(PktFlags::TIOCPKT_START);
    }

    /// Lets output go (`^Q`, `TCOON`).
    pub fn start(&mut self) {
        self.stopped = false;
        self.packet.insert(PktFlags::TIOCPKT_START);
        self.packet.remove(PktFlags::TIOCPKT_STOP);
    }

    /// Forgets unread input.
    pub fn flush_input(&mut self) {
        self.input.clear();
        self.line.clear();
        self.packet.insert(PktFlags::TIOCPKT_FLUSHREAD);
    }

    /// Forgets output the master has not read.
    pub fn flush_output(&mut self) {
        self.output.clear();
        self.packet.insert(PktFlags::TIOCPKT_FLUSHWRITE);
    }

    /// What a master in packet mode is to be told, once.
    pub fn take_packet(&mut self) -> Option<PktFlags> {
        let packet = std::mem::replace(&mut self.packet, PktFlags::empty());
        (!packet.is_empty()).then_some(packet)
    }

    /// Whether [`Self::take_packet`] has something.
    pub fn has_packet(&self) -> bool {
        !self.packet.is_empty()
    }
}

/// Moves as many bytes as fit.
fn take(from: &mut VecDeque<u8>, to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    for (slot, byte) in to.iter_mut().zip(from.drain(..len)) {
        *slot = byte;
    }
    len
}

const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Columns a byte takes at `column`.
const fn width(byte: u8, column: usize) -> usize {
    match byte {
        b'\t' => TAB - column % TAB,
        byte if is_control(byte) || is_continuation(byte) => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(discipline: &mut Discipline, bytes: &[u8]) -> Vec<Signal> {
        let bytes = bytes.iter();
        bytes.filter_map(|&byte| discipline.input(byte)).collect()
    }

    fn read(discipline: &mut Discipline) -> Option<Vec<u8>> {
        let mut buf = [0; 128];
        let len = discipline.read(&mut buf)?;
        Some(buf[..len].to_vec())
    }

    fn output(discipline: &mut Discipline) -> Vec<u8> {
        let mut buf = [0; 256];
        let len = discipline.take_output(&mut buf);
        buf[..len].to_vec()
    }

    #[test]
    fn lines_are_edited_and_echoed() {
        let mut tty = Discipline::new();
        typed(&mut tty, b"cax\x7ft\r");
        assert_eq!(read(&mut tty), Some(b"cat\n".to_vec()));
        assert_eq!(read(&mut tty), None);
        assert_eq!(output(&mut tty), b"cax\x08 \x08t\r\n");
    }

    #[test]
    fn end_of_file_ends_a_read() {
        let mut tty = Discipline::new();
        typed(&mut tty, b"ab\x04");
        assert_eq!(read(&mut tty), Some(b"ab".to_vec()));
        typed(&mut tty, b"\x04");
        assert_eq!(read(&mut tty), Some(Vec::new()));
    }

    #[test]
    fn signals_flush_the_line() {
        let mut tty = Discipline::new();
        assert_eq!(typed(&mut tty, b"abc\x03"), [Signal::SIGINT]);
        typed(&mut tty, b"d\n");
        assert_eq!(read(&mut tty), Some(b"d\n".to_vec()));
        assert!(output(&mut tty).starts_with(b"^C"));
    }

    #[test]
    fn raw_mode_gives_bytes_as_they_come() {
        let mut tty = Discipline::new();
        typed(&mut tty, b"half");
        let mut raw = tty.termios();
        raw.c_lflag = 0;
        raw.c_iflag = 0;
        tty.set_termios(raw);
        assert_eq!(read(&mut tty), Some(b"half".to_vec()));
        assert!(typed(&mut tty, b"\x03\r").is_empty());
        assert_eq!(read(&mut tty), Some(b"\x03\r".to_vec()));
    }

    #[test]
    fn words_are_erased() {
        let mut tty = Discipline::new();
        typed(&mut tty, b"one two  \x17three\n");
        assert_eq!(read(&mut tty), Some(b"one three\n".to_vec()));
    }

    #[test]
    fn flow_control_holds_output() {
        let mut tty = Discipline::new();
        typed(&mut tty, b"\x13");
        assert_eq!(tty.write(b"x"), 0);
        typed(&mut tty, b"\x11");
        assert_eq!(tty.write(b"x\n"), 2);
        assert_eq!(output(&mut tty), b"x\r\n");
    }
}
