//! What can be done to the active one of two machines, and how it is made good.

use clap::ValueEnum;
use serde::Serialize;

use crate::error::LabError;
use crate::link::Cut;
use crate::subject::Machine;

/// Harm to the active machine, or what an operator does to it. Made good afterwards, it must come back as standby and have done
/// nobody any harm meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The program is killed (`SIGKILL`), and later started again.
    Kill,
    /// The program is frozen (`SIGSTOP`): it does nothing, but keeps its sockets and devices; later it
    /// goes on where it stood.
    Freeze,
    /// The program is frozen and the cable is cut.
    FreezeCut,
    /// The cable is cut: frames dropped both ways, carrier kept.
    Cut,
    /// The two machines do not hear each other, while clients and servers hear both.
    Partition,
    /// The machine is gone at once, with its network stack, and returns empty.
    Reboot,
    /// The program is asked to stop (`SIGTERM`), and later started again.
    Restart,
    /// It is asked to hand over to the standby, and goes on as standby itself.
    Handover,
}

impl Fault {
    /// Does it. `active` and `standby` are what they are now.
    pub fn inflict(
        self,
        active: &mut dyn Machine,
        standby: &mut dyn Machine,
    ) -> Result<(), LabError> {
        match self {
            Self::Kill => active.kill(),
            Self::Freeze => active.freeze(),
            Self::FreezeCut => {
                active.freeze()?;
                active.host().link().cut(Cut::Both)
            }
            Self::Cut => active.host().link().cut(Cut::Both),
            Self::Partition => {
                active.host().link().keep_apart()?;
                standby.host().link().keep_apart()
            }
            Self::Restart => active.stop(),
            Self::Handover => active.hand_over(),
            Self::Reboot => {
                // What a dying kernel says of its sockets must not get out.
                active.host_mut().unplug();
                active.kill_all()?;
                active.host_mut().power_off()
            }
        }
    }

    /// Makes it good; `active` and `standby` are what they were when it was done.
    pub fn heal(self, active: &mut dyn Machine, standby: &mut dyn Machine) -> Result<(), LabError> {
        match self {
            // What has handed over still runs, unless handing over means to stop.
            Self::Kill | Self::Restart | Self::Handover => active.start(),
            Self::Freeze => active.thaw(),
            Self::FreezeCut => {
                active.host().link().restore()?;
                active.thaw()
            }
            Self::Cut => active.host().link().restore(),
            Self::Partition => {
                active.host().link().restore()?;
                standby.host().link().restore()
            }
            Self::Reboot => {
                active.host_mut().power_on()?;
                active.start()
            }
        }
    }

    /// It in words.
    pub fn harm(self, node: &str) -> String {
        match self {
            Self::Kill => format!("{node}'s program is killed"),
            Self::Freeze => format!("{node}'s program is frozen"),
            Self::FreezeCut => format!("{node}'s program is frozen and its cable cut"),
            Self::Cut => format!("{node}'s cable is cut"),
            Self::Partition => format!("{node} and the other node do not hear each other"),
            Self::Reboot => format!("{node} is switched off"),
            Self::Restart => format!("{node}'s program is asked to stop"),
            Self::Handover => format!("{node} is asked to hand over"),
        }
    }

    /// What makes it good, in words.
    pub fn healing(self, node: &str) -> String {
        match self {
            Self::Kill | Self::Restart => format!("{node}'s program is started again"),
            Self::Freeze => format!("{node}'s program goes on"),
            Self::FreezeCut => format!("{node}'s cable is whole again and its program goes on"),
            Self::Cut => format!("{node}'s cable is whole again"),
            Self::Partition => format!("{node} and the other node hear each other again"),
            Self::Reboot => format!("{node} is back, empty"),
            Self::Handover => format!("{node} is left alone"),
        }
    }
}
