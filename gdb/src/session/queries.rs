//! Answers to the packets of [`crate::qemu`].

use super::Session;
use super::base::errno;
use crate::qemu::Query;

impl Session<'_> {
    /// A packet's body.
    pub(crate) fn answer_query(&mut self, query: Query) -> String {
        if query.is_qemus() {
            self.console.set_reads_as_qemu();
        }
        match query {
            Query::Supported => "sstepbits;sstep;PhyMemMode".to_owned(),
            Query::StepBits => "ENABLE=1,NOIRQ=2,NOTIMER=4".to_owned(),
            Query::Step => "0x7".to_owned(),
            Query::SetStep(true) => "OK".to_owned(),
            Query::SetStep(false) => format!("E{:02x}", errno::EINVAL),
            Query::Physical => u8::from(self.selection.is_physical()).to_string(),
            Query::SetPhysical(physical) => {
                self.selection.set_physical(physical);
                "OK".to_owned()
            }
            Query::Offsets => self.offsets(),
            Query::IsUserMode => String::new(),
        }
    }

    /// The slide of KASLR. gdb moves every segment by as much as the first, and
    /// symbols in no segment (the per-CPU section, see [`crate::symbol_file`]) not at
    /// all. Empty while there is no slide: gdb leaves its symbols alone then.
    fn offsets(&mut self) -> String {
        let segment = self.text_segment();
        if self.guest.linux.was_missed() {
            self.notice(
                "the guest's kernel is still being looked for, and gdb has to do without its \
                 symbols or their place: attach again (disconnect, target remote) when \
                 \"monitor lx version\" shows it"
                    .to_owned(),
            );
        }
        if self.guest.linux.were_types_missed() {
            self.notice(
                "the guest's types are still being read, and gdb has its symbols alone: attach \
                 again (disconnect, target remote) in some seconds to have them"
                    .to_owned(),
            );
        }
        match segment {
            Some(addr) => {
                self.place.note_told(addr);
                format!("TextSeg={addr:x}")
            }
            None => String::new(),
        }
    }
}
