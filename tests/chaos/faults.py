"""The faults. Each is a function that breaks something, holds it for a while, and returns; what it has broken is mended by the
suite afterwards (Chaos.mend). Those that use Chaos.hold leave a majority and an agent connected: work must go on meanwhile."""

import re
import signal

from hosts import CLIENT

FULL = re.compile(r"[Nn]o space|not enough space|disk nearly full")
LONGER_THAN_LEASE = 4.5  # seconds; a scheduler's lease of a node is 3


def leader_isolated(c):
    c.network.part([c.leader().name])
    c.hold()


def leader_cut_from_schedulers(c):
    """Agents and clients still reach it."""
    leader = c.leader()
    c.network.part([leader.name], [h.name for h in c.hosts.schedulers])
    c.hold()


def leader_is_deaf(c):
    """It is heard, and hears nobody."""
    leader = c.leader()
    c.network.cut(c.network.names(), [leader.name])
    c.hold()


def leader_is_mute(c):
    leader = c.leader()
    c.network.cut([leader.name], c.network.names())
    c.hold()


def follower_isolated(c):
    c.network.part([c.follower().name])
    c.hold()


def no_two_schedulers_connected(c):
    names = [h.name for h in c.hosts.schedulers]
    for name in names:
        c.network.part([name], names)
    c.pause(2)


def agents_cut_from_leader(c):
    """All agents but one."""
    c.network.part([h.name for h in c.hosts.agents[1:]], [c.leader().name])
    c.hold(LONGER_THAN_LEASE)


def agent_isolated(c):
    """Longer than its lease: what it runs is run elsewhere, what it holds is delivered afterwards."""
    c.network.part([c.any_agent().name])
    c.hold(LONGER_THAN_LEASE)


def flapping(c):
    for _ in range(3):
        c.network.part([c.any_scheduler().name])
        c.pause(0.7)
        c.network.heal()
        c.pause(0.4)


def client_cut_from_leader(c):
    """Requests whose answers are lost: the same key must give the same id. Longer than a link believes in a silent peer."""
    c.network.cut([c.leader().name], [CLIENT])
    c.pause(6)


def leader_killed(c):
    leader = c.leader()
    leader.kill()
    c.hold(1)
    leader.start()


def all_schedulers_killed(c):
    for host in c.hosts.schedulers:
        host.expected_to_end = True
        host.send_signal(signal.SIGKILL)
    for host in c.hosts.schedulers:
        host.kill()
    for host in c.hosts.schedulers:
        host.start()


def follower_killed_and_leader_cut(c):
    """No majority for a moment; what was acknowledged before is still there."""
    follower, leader = c.follower(), c.leader()
    follower.kill()
    c.network.part([leader.name])
    c.pause(1.5)
    follower.start()
    c.pause(1.5)


def leader_frozen(c):
    leader = c.leader()
    leader.send_signal(signal.SIGSTOP)
    c.hold()
    leader.send_signal(signal.SIGCONT)


def follower_frozen(c):
    follower = c.follower()
    follower.send_signal(signal.SIGSTOP)
    c.hold()
    follower.send_signal(signal.SIGCONT)


def agent_killed(c):
    agent = c.any_agent()
    agent.kill()
    c.pause(0.3)
    agent.start()


def agent_killed_longer_than_lease(c):
    agent = c.any_agent()
    agent.kill()
    c.hold(LONGER_THAN_LEASE)
    agent.start()


def agents_restarted(c):
    for host in c.hosts.agents:
        host.kill(signal.SIGTERM)
        host.start()


def agent_frozen(c):
    agent = c.any_agent()
    agent.send_signal(signal.SIGSTOP)
    c.hold(LONGER_THAN_LEASE)
    agent.send_signal(signal.SIGCONT)


def schedulers_restarted_in_turn(c):
    """As an upgrade does: each is asked to end and is back before the next goes."""
    for host in c.hosts.schedulers:
        host.kill(signal.SIGTERM)
        host.start()
        c.wait_healthy()


def disk_full(c, host):
    """Payloads that need room come in, and then the daemon is killed and must start on its full disk, or say why it cannot."""
    size = len(host.log())
    host.expected_to_end = True
    host.fill_disk()
    c.load.burst(40, 100 << 10)
    c.pause(2)
    host.kill()
    host.fill_disk()
    host.start()
    host.expected_to_end = True
    c.wait(lambda: FULL.search(host.log()[size:]) if not host.alive() else c.connected(host), f"{host.name} runs or says why not")


def leader_disk_full(c):
    disk_full(c, c.leader())


def follower_disk_full(c):
    disk_full(c, c.follower())


def disk_full_and_log_used_up(c):
    """A scheduler makes room for the next segments of its log (96 MiB) ahead: a burst must use that up before the disk is felt. A leader
    would refuse the burst; a follower must take what a majority takes, until it cannot."""
    host = c.follower()
    size = len(host.log())
    host.expected_to_end = True
    host.fill_disk()
    c.load.burst(7000, 15000)

    def felt():
        host.fill_disk()
        return not host.alive() or FULL.search(host.log()[size:])

    c.wait(felt, f"{host.name} has felt its full disk", 120)
    c.pause(1)


def clock_jumps(c, offset):
    """The clock of the first scheduler, which is made the leader for it."""
    host = c.hosts.schedulers[0]
    c.transfer(host)
    host.set_clock(offset)
    c.hold(2.5)  # the new time is felt within a second


def clock_jumps_forward(c):
    clock_jumps(c, 2 * 3600)


def clock_jumps_back(c):
    """By less than certificates are dated back."""
    clock_jumps(c, -120)


NEEDS_CLOCKS = {clock_jumps_forward, clock_jumps_back}
NEEDS_SPAWNS = {leader_disk_full, follower_disk_full, disk_full_and_log_used_up}

# Each once, in a fixed order, is the short run; a long run then draws from them.
FAULTS = [
    leader_isolated,
    agent_killed,
    leader_killed,
    leader_is_deaf,
    follower_isolated,
    agent_isolated,
    leader_frozen,
    leader_disk_full,
    leader_cut_from_schedulers,
    agent_killed_longer_than_lease,
    all_schedulers_killed,
    clock_jumps_forward,
    leader_is_mute,
    agents_cut_from_leader,
    flapping,
    agent_frozen,
    client_cut_from_leader,
    follower_killed_and_leader_cut,
    follower_disk_full,
    clock_jumps_back,
    disk_full_and_log_used_up,
    agents_restarted,
    no_two_schedulers_connected,
    follower_frozen,
    schedulers_restarted_in_turn,
]
