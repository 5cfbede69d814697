"""The relay's faults, piece by piece; the namespaces around it are the scenarios' affair."""
import random
import unittest

from proxy import Connection, Faults, Pipe


def pipe(outward: bool = True) -> Pipe:
    return Connection(None, None, "10.0.0.2", 5000, outward).pipes[0]


class Relay(unittest.TestCase):
    def take(self, words: list[str], data: bytes, times: int = 1, one: Pipe | None = None):
        one = one or pipe()
        chance = random.Random(1)
        for _ in range(times):
            one.take(data, Faults.read(words), chance, 100.0)
        return one.pieces

    def test_a_plain_relay_changes_nothing(self):
        self.assertEqual(self.take([], b"abc", 2), [(100.0, b"abc"), (100.0, b"abc")])

    def test_latency_keeps_the_order(self):
        due = [at for at, _ in self.take(["latency=100ms", "jitter=90ms"], b"x", 50)]
        self.assertEqual(due, sorted(due))
        self.assertGreater(due[0], 100.0)
        self.assertLessEqual(due[-1], 100.2)

    def test_rate_is_bytes_a_second(self):
        self.assertAlmostEqual(self.take(["rate=1000"], b"x" * 100, 5)[-1][0], 100.5)

    def test_a_hole_swallows_one_direction(self):
        self.assertEqual(self.take(["hole=out"], b"abc", one=pipe(True)), [])
        self.assertEqual(len(self.take(["hole=in"], b"abc", one=pipe(True))), 1)

    def test_corrupt_changes_single_bits_now_and_then(self):
        pieces = self.take(["corrupt=1000"], bytes(100), 200)
        bits = [bin(int.from_bytes(data, "big")).count("1") for _, data in pieces]
        self.assertLessEqual(max(bits), 1)
        self.assertGreater(sum(bits), 5)
        self.assertEqual(sum(len(data) for _, data in pieces), 20000)

    def test_duplicate_sends_a_piece_twice(self):
        sizes = {len(data) for _, data in self.take(["duplicate=500"], bytes(100), 100)}
        self.assertEqual(sizes, {100, 200})

    def test_slices_and_loses_nothing(self):
        data = bytes(range(200))
        pieces = self.take(["slice=1"], data)
        self.assertEqual(b"".join(piece for _, piece in pieces), data)
        self.assertEqual({len(piece) for _, piece in pieces}, {1, 136})
        self.assertEqual(self.take(["slice=3"], b"abcd"), [(100.0, b"abc"), (100.0, b"d")])

    def test_meant_for_one_peer_or_port(self):
        control = Connection(None, None, "10.0.0.2", 5000, True)
        self.assertTrue(Faults.read(["hang", "to=10.0.0.2"]).meant(control))
        self.assertFalse(Faults.read(["hang", "to=10.0.0.3"]).meant(control))
        self.assertFalse(Faults.read(["hang", "port!=5000"]).meant(control))

    def test_refuses_what_it_does_not_understand(self):
        for word in ("burn", "latency=fast", "slice", "port=http"):
            with self.assertRaises(ValueError, msg=word):
                Faults.read([word])


if __name__ == "__main__":
    unittest.main()
