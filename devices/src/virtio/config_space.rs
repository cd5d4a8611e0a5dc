//! The device configuration space as the guest reads it (virtio 1.3, section 2.5).

use super::page::{CONFIG_MAX, RegisterPage};
use super::spec::Register;

/// The space, and the generation of its contents.
#[derive(Default)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// What it was when the device was last reset.
    initial: Vec<u8>,
    generation: u32,
}

impl ConfigSpace {
    /// In bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has other contents than after the last reset. A reset takes back what the
    /// driver has set there, such as an address.
    pub fn has_changed(&self) -> bool {
        self.bytes != self.initial
    }

    /// The device has been reset: these are the contents that it then has.
    pub fn settle(&mut self) {
        self.initial.clone_from(&self.bytes);
    }

    /// Makes `bytes` its contents, if they are others.
    ///
    /// The generation (section 2.5.3) changes before and after: a read that
    /// overlaps the update sees two different ones, unless it fits in between
    /// whole, and then the interrupt that follows makes the driver read again.
    pub fn publish(&mut self, mut bytes: Vec<u8>, page: &RegisterPage) {
        bytes.truncate(CONFIG_MAX);
        if bytes == self.bytes {
            return;
        }
        self.next_generation(page);
        page.publish_config(&bytes);
        self.next_generation(page);
        self.bytes = bytes;
    }

    fn next_generation(&mut self, page: &RegisterPage) {
        self.generation = self.generation.wrapping_add(1);
        page.publish(Register::ConfigGeneration, self.generation);
    }
}
