//! With the feature `deliberate-faults`: a fault of each kind is noticed. (The command `mutants` hunts all.)
#![cfg(feature = "deliberate-faults")]

use outlive_sim::mutants;
use outlive_tcp::fault::Fault;

#[test]
fn faults_are_named_by_the_checks_that_are_there_for_them() {
    let expected = [
        (Fault::AcknowledgeEarly, "TruthfulAcknowledgment"),
        (Fault::RecordAfterEffect, "RecordBeforeEffect"),
        (Fault::WindowNotRescaled, "Window"),
        (Fault::SackNotTranslated, "Selective"),
        (Fault::SegmentsNotLimited, "SegmentSize"),
        (Fault::IcmpNotReaddressed, "Quotation"),
        (Fault::OnePathIsAll, "Takeover"),
        (Fault::EpochNotRaised, "Epoch"),
        (Fault::PortsOfTheOther, "Ports"),
        (Fault::ChecksumNotUpdated, "WellFormed"),
    ];
    for (fault, check) in expected {
        let mutant = mutants::hunt(fault);
        assert_eq!(mutant.check.as_deref(), Some(check), "{mutant:?}");
    }
}
