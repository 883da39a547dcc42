"""A network of its own: each host a network namespace, all on one bridge, none with a way out.

The suite runs inside fresh network, mount and process namespaces (chaos.py), so that everything made here goes when it does,
however it ends. The addresses are of 198.18.0.0/15, which RFC 2544 sets aside for tests of networks. Cuts are nftables
rules of the bridge family, in one direction each.
"""

import subprocess

BRIDGE = "br0"
PREFIX = "198.18.0."


def command(*args, **options):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, args))}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Network:
    def __init__(self):
        self._addresses = {}
        self._cuts = set()
        command("mount", "-t", "tmpfs", "-o", "size=1m", "none", "/run")  # `ip netns` keeps its names there
        command("ip", "link", "set", "lo", "up")
        command("ip", "link", "add", BRIDGE, "type", "bridge")
        command("ip", "link", "set", BRIDGE, "up")

    def add(self, name):
        """A host; returns its address."""
        self._addresses[name] = f"{PREFIX}{len(self._addresses) + 1}"
        command("ip", "netns", "add", name)
        command("ip", "link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        command("ip", "link", "set", f"v-{name}", "master", BRIDGE, "up")
        command("ip", "-n", name, "address", "add", f"{self._addresses[name]}/24", "dev", "eth0")
        command("ip", "-n", name, "link", "set", "eth0", "up")
        command("ip", "-n", name, "link", "set", "lo", "up")
        return self._addresses[name]

    def names(self):
        return list(self._addresses)

    def inside(self, name, *args):
        """The command line that runs a command on a host."""
        return ["nsenter", f"--net=/run/netns/{name}", "--", *map(str, args)]

    # -- Cuts --

    def cut(self, senders, receivers):
        """Nothing from the senders reaches the receivers any more; the other direction is as it was."""
        self._cuts |= {(a, b) for a in senders for b in receivers if a != b}
        self._apply()

    def part(self, some, others=None):
        """Cuts some hosts off from others (all the rest) in both directions."""
        others = set(self._addresses) - set(some) if others is None else others
        self.cut(some, others)
        self.cut(others, some)

    def heal(self):
        self._cuts.clear()
        self._apply()

    def _apply(self):
        """The whole set of rules at once: there is no moment between two cuts."""
        rules = "".join(f'    iifname "v-{a}" oifname "v-{b}" drop\n' for a, b in sorted(self._cuts))
        text = (
            "table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {\n  chain forward {\n"
            f"    type filter hook forward priority 0; policy accept;\n{rules}  }}\n}}\n"
        )
        command("nft", "-f", "-", input=text)
