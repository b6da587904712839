use std::cell::RefCell;
use std::rc::Rc;

use chiton_shared::virtio::balloon::PAGE;

use super::*;
use crate::testing::{Machine, bytes};

#[test]
fn pages_are_named_one_by_one_and_come_back_to_the_heap() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let machines = [0, 1, 2, 3].map(|queue| {
        let told = Rc::clone(&told);
        Machine::new(8, move |chain, _| {
            let numbers: Vec<u32> = chain
                .readable()
                .iter()
                .flat_map(bytes)
                .collect::<Vec<u8>>()
                .chunks(4)
                .map(|n| u32::from_le_bytes(n.try_into().unwrap()))
                .collect();
            told.borrow_mut().push((queue, numbers));
            Some(0)
        })
    });
    let mut balloon = Driver::new(machines.each_ref().map(Machine::queue), &machines[0], 0);
    balloon.inflate(PAGE as usize * 2000 + 1).unwrap();
    assert_eq!(balloon.held(), PAGE as usize * 2001);
    let given = told.take();
    assert_eq!((given[0].1.len(), given[1].1.len()), (1024, 977));
    assert!(given.iter().all(|(queue, _)| *queue == INFLATE));
    let all: Vec<u32> = given.iter().flat_map(|(_, numbers)| numbers.clone()).collect();
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(balloon.deflate(), Ok(PAGE as usize * 2001));
    let taken: Vec<_> = given.into_iter().map(|(_, numbers)| (DEFLATE, numbers)).collect();
    assert_eq!(told.take(), taken, "the device hears of the same pages");
    assert_eq!((balloon.deflate(), balloon.held()), (Ok(0), 0));
    balloon.report(&mut [0; 64]).unwrap();
    assert_eq!(machines[3].waits(), 1);
    assert_eq!(balloon.inflate(usize::MAX), Err(BalloonError::NoMemory(usize::MAX)));
}

#[test]
fn the_driver_says_how_much_it_gave() {
    let machines = [0, 1, 2, 3].map(|_| Machine::new(8, |_, _| Some(0)));
    let host = &machines[0];
    let mut balloon = Driver::new(machines.each_ref().map(Machine::queue), host, 0);
    let actual = || host.config_words[1].get();
    balloon.inflate(3 * PAGE as usize).unwrap();
    assert_eq!(actual(), 3);
    host.config_words[0].set(40);
    balloon.follow().unwrap();
    assert_eq!(
        (balloon.target(), balloon.held() as u64, actual()),
        (40 * PAGE, 40 * PAGE, 40)
    );
    host.config_words[0].set(0);
    balloon.follow().unwrap();
    assert_eq!((balloon.held(), actual(), balloon.deflate()), (0, 0, Ok(0)));
}

#[test]
fn statistics_go_out_once_and_again_when_asked_for() {
    use chiton_shared::virtio::balloon::{STATISTICS, Statistics};
    // The device keeps the first chain, and gives it back with the second.
    let told = Rc::new(RefCell::new(Vec::new()));
    let machines = [0, 1, 2, 3].map(|_| {
        let told = Rc::clone(&told);
        Machine::new(8, move |chain, _| {
            told.borrow_mut()
                .push(chain.readable().iter().flat_map(bytes).collect::<Vec<u8>>());
            None
        })
    });
    let mut balloon = Driver::new(machines.each_ref().map(Machine::queue), &machines[0], 0);
    let statistics = Statistics {
        free: Some(5),
        ..Statistics::default()
    };
    for _ in 0..3 {
        balloon.serve_statistics(&statistics).unwrap();
    }
    let mut expected = [0; STATISTICS];
    let len = statistics.write(&mut expected);
    assert_eq!(*told.borrow(), [expected[..len].to_vec()]);
    // The used ring as a device writes it: one chain, that of the first head.
    let used = machines[2].areas().device;
    used.write_u32(4, 0);
    used.write_u32(8, 0);
    used.store_u16(2, 1);
    balloon.serve_statistics(&statistics).unwrap();
    balloon.serve_statistics(&statistics).unwrap();
    assert_eq!(told.borrow().len(), 2);
}
