//! Features and configuration space of the block device (virtio 1.3, sections 5.2.3 and 5.2.4).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::cache::WRITEBACK;
use super::image::Image;
use super::request::Disk;
use super::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS, SEG_MAX};

/// Size of `struct virtio_blk_config` up to and including the write-zeroes fields.
pub const CONFIG_SIZE: usize = 60;

/// Feature bits offered for `image` with `queues` request queues.
pub fn features(image: &Image, queues: u16) -> u64 {
    let mut bits = vec![
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_FLUSH,
    ];
    if image.is_read_only() {
        bits.push(VIRTIO_BLK_F_RO);
    } else {
        bits.extend([VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_F_CONFIG_WCE]);
    }
    if image.can_discard() {
        bits.push(VIRTIO_BLK_F_DISCARD);
    }
    if queues > 1 {
        bits.push(VIRTIO_BLK_F_MQ);
    }
    bits.into_iter().fold(0, |mask, bit| mask | 1 << bit)
}

/// The configuration space, little-endian. Fields of features that are not offered are zero.
pub fn space(disk: &Disk, queues: u16) -> [u8; CONFIG_SIZE] {
    let image = disk.image();
    let mut space = [0; CONFIG_SIZE];
    let mut put = |offset: usize, bytes: &[u8]| {
        space[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &image.sectors().to_le_bytes()); // capacity
    put(12, &SEG_MAX.to_le_bytes()); // seg_max
    put(20, &image.block_size().to_le_bytes()); // blk_size
    put(24, &[image.physical_block_exp()]); // topology.physical_block_exp
    put(34, &queues.to_le_bytes()); // num_queues
    if image.can_discard() {
        let alignment = image.block_size() / 512;
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes()); // max_discard_sectors
        put(40, &MAX_RANGES.to_le_bytes()); // max_discard_seg
        put(44, &alignment.to_le_bytes()); // discard_sector_alignment
    }
    if !image.is_read_only() {
        put(WRITEBACK as usize, &[disk.cache().mode()]);
        put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &MAX_RANGES.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
    }
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(len: u64, read_only: bool) -> (tempfile::NamedTempFile, Disk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        let image = Image::open(file.path(), read_only).unwrap();
        (file, Disk::new(image, ""))
    }

    #[test]
    fn the_space_is_laid_out_as_specified() {
        let (_file, disk) = disk(8 << 20, false);
        let space = space(&disk, 3);
        assert_eq!(space[0..8], (16384u64).to_le_bytes());
        assert_eq!(space[8..12], [0; 4], "size_max is not offered");
        assert_eq!(space[12..16], 126u32.to_le_bytes());
        assert_eq!(space[20..24], 512u32.to_le_bytes());
        assert_eq!(space[32..34], [1, 0], "writeback, and padding");
        assert_eq!(space[34..36], 3u16.to_le_bytes());
        assert_eq!(space[36..40], (1u32 << 22).to_le_bytes());
        assert_eq!(space[40..44], 32u32.to_le_bytes());
        assert_eq!(space[44..48], 1u32.to_le_bytes());
        assert_eq!(space[48..52], (1u32 << 17).to_le_bytes());
        assert_eq!(space[52..56], 32u32.to_le_bytes());
        assert_eq!(space[56..60], [1, 0, 0, 0]);
    }

    #[test]
    fn a_read_only_image_offers_nothing_that_writes() {
        let (_file, disk) = disk(4096, true);
        let offered = features(disk.image(), 1);
        let has = |bit: u32| offered & (1 << bit) != 0;
        assert!(has(VIRTIO_BLK_F_RO));
        assert!(!has(VIRTIO_BLK_F_DISCARD) && !has(VIRTIO_BLK_F_WRITE_ZEROES));
        assert!(!has(VIRTIO_BLK_F_CONFIG_WCE) && !has(VIRTIO_BLK_F_MQ));
        assert_eq!(space(&disk, 1)[32..36], [0, 0, 1, 0]);
        assert_eq!(space(&disk, 1)[36..], [0; 24]);
    }
}
