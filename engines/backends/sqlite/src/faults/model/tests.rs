use std::collections::BTreeSet;

use super::*;

const S: usize = SECTOR;

/// Every image that 2,000 cuts leave of a file.
fn outcomes(file: &File) -> BTreeSet<Vec<u8>> {
    (0..2000).map(|seed| file.after_cut(&mut Dice::new(seed)).to_vec()).collect()
}

#[test]
fn each_sector_ends_as_any_of_its_versions_and_as_nothing_else() {
    let mut file = File::durable(&[0; 3 * S]);
    file.write(0, &[1; 2 * S]);
    file.write(S as u64, &[2; 2 * S]);
    let mut found = BTreeSet::new();
    for image in outcomes(&file) {
        assert_eq!(image.len(), 3 * S);
        found.insert([0, 1, 2].map(|sector| {
            let bytes = &image[sector * S..][..S];
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a sector is torn");
            bytes[0]
        }));
    }
    let all =
        [0, 1].iter().flat_map(|a| [0, 1, 2].map(|b| [*a, b])).flat_map(|[a, b]| [[a, b, 0], [a, b, 2]]);
    assert_eq!(found, all.collect());
}

#[test]
fn a_write_of_part_of_a_sector_spares_the_rest() {
    let mut file = File::durable(&[7; 2 * S]);
    file.write(500, &[9; 100]);
    let left = outcomes(&file);
    for image in &left {
        assert!(image[..500].iter().chain(&image[600..]).all(|byte| *byte == 7));
    }
    assert_eq!(left.len(), 4);
}

#[test]
fn what_was_synced_stays() {
    let mut file = File::default();
    file.write(10, &[3; 3000]);
    file.truncate(2000);
    file.sync();
    assert_eq!(outcomes(&file), BTreeSet::from([file.to_vec()]));
}

#[test]
fn growth_that_survives_alone_reads_as_zeros_or_garbage() {
    let mut file = File::durable(&[1; S]);
    file.write(S as u64, &[2; S]);
    let left = outcomes(&file);
    assert!(left.contains(&vec![1; S]) && left.contains(&file.to_vec()));
    assert!(left.contains(&[[1; S], [0; S]].concat()));
    assert!(left.len() > 3, "no garbage");
    assert!(left.iter().all(|image| image[..S] == [1; S]));
}

#[test]
fn a_lost_shrink_takes_later_growth_with_it_and_a_kept_one_hides_the_old_bytes() {
    let mut file = File::durable(&[1; 4 * S]);
    file.write(0, &[4; S]);
    file.truncate(100);
    file.write(2 * S as u64, &[2; S]);
    let left = outcomes(&file);
    for image in &left {
        match image.len() {
            len if len == 4 * S => assert_eq!(image[S..], [1; 3 * S], "a write without blocks of its own"),
            100 => {}
            len => {
                assert_eq!(len, 3 * S);
                assert!(image[100..2 * S].iter().all(|byte| *byte == 0), "old bytes came back");
            }
        }
    }
    let sizes: BTreeSet<usize> = left.iter().map(Vec::len).collect();
    assert_eq!(sizes, BTreeSet::from([100, 3 * S, 4 * S]));
    assert!(left.contains(&file.to_vec()));
}

#[test]
fn names_are_durable_from_the_directory_sync_on() {
    let files = [File::durable(b"old"), File::durable(b"new")];
    let left = |directory: &Directory| -> BTreeSet<Vec<(String, Vec<u8>)>> {
        let image = |(name, file): (String, File)| (name, file.to_vec());
        let find = |id: u64| files.get(id as usize);
        (0..50).map(|seed| cut(directory, find, seed).into_iter().map(image).collect()).collect()
    };
    let only = |bytes: &[u8]| vec![("a".to_owned(), bytes.to_vec())];
    let mut directory = Directory::default();
    directory.set("a", Some(0));
    assert_eq!(left(&directory), BTreeSet::from([vec![], only(b"old")]));
    directory.sync();
    assert_eq!(left(&directory), BTreeSet::from([only(b"old")]));
    directory.set("a", None);
    directory.set("a", Some(1));
    assert_eq!(left(&directory), BTreeSet::from([vec![], only(b"old"), only(b"new")]));
    assert!(directory.may_name(0));
    directory.sync();
    assert_eq!(left(&directory), BTreeSet::from([only(b"new")]));
    assert!(!directory.may_name(0));
}

#[test]
fn the_cache_is_bounded_and_writes_back_the_oldest_first() {
    let mut file = File::default();
    let chunk = vec![5; 1 << 20];
    for at in 0..=DIRTY_BYTES_MAX / chunk.len() {
        file.write((at * chunk.len()) as u64, &chunk);
    }
    assert_eq!(file.dirty_bytes, DIRTY_BYTES_MAX);
    assert_eq!(file.durable.size(), chunk.len() as u64);
}
