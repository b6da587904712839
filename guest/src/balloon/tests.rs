use std::cell::RefCell;
use std::rc::Rc;

use chiton_shared::virtio::balloon::PAGE;

use super::*;
use crate::testing::{Machine, bytes};

#[test]
fn pages_are_named_one_by_one_and_come_back_to_the_heap() {
    let told = Rc::new(RefCell::new(Vec::new()));
    let machines = [0, 1, 2, 3].map(|_| {
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
            told.borrow_mut().push(numbers);
            Some(0)
        })
    });
    let mut balloon = Driver::new(machines.each_ref().map(Machine::queue), &machines[0], 0);
    balloon.inflate(PAGE as usize * 2000 + 1).unwrap();
    assert_eq!(balloon.held(), PAGE as usize * 2001);
    {
        let told = told.borrow();
        assert_eq!((told[0].len(), told[1].len()), (1024, 977));
        let all = told.concat();
        assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
    assert_eq!(balloon.deflate(), Ok(PAGE as usize * 2001));
    assert_eq!((balloon.deflate(), balloon.held()), (Ok(0), 0));
    balloon.report(&mut [0; 64]).unwrap();
    assert_eq!(machines[3].waits(), 1);
    assert_eq!(balloon.inflate(usize::MAX), Err(BalloonError::NoMemory(usize::MAX)));
}
