"""Sums, differences and products written out so that a tiny model can follow them: operands padded
with zeros to one length, one line for each digit with its carry, the result read off at the end.
Each function gives (full English, full Italian, turbo English, turbo Italian)."""

WORDS = {
    "en": {"carry": "carry", "borrow": "borrow", "result": "Result"},
    "it": {"carry": "riporto", "borrow": "prestito", "result": "Risultato"},
}


def padded(a, b):
    width = max(len(str(a)), len(str(b)))
    return f"{a:0{width}}", f"{b:0{width}}"


def full(head, lines, result, word):
    """lines: (digit work, digit, carry), the lowest digit first."""
    def text(lang):
        body = [f"{work}: {digit}, {WORDS[lang][word]} {carry}" for work, digit, carry in lines]
        return "\n".join([head, *body, f"{WORDS[lang]['result']}: {result}"])
    return text("en"), text("it")


def sum_notes(a, b):
    top, bottom = padded(a, b)
    lines, carry, digits = [], 0, ""
    for x, y in zip(reversed(top), reversed(bottom)):
        total = int(x) + int(y) + carry
        lines.append((f"{x}+{y}+{carry}={total}", total % 10, total // 10))
        digits, carry = str(total % 10) + digits, total // 10
    digits = str(carry) + digits  # the last carry is written even when it is 0
    head = f"{top}+{bottom}"
    turbo = f"{head} = {digits[::-1]}"
    return (*full(head, lines, digits, "carry"), turbo, turbo)


def difference_notes(a, b):
    top, bottom = padded(a, b)
    lines, borrow, digits = [], 0, ""
    for x, y in zip(reversed(top), reversed(bottom)):
        value = int(x) - int(y) - borrow
        ten = value < 0
        work = f"{x}{'+10' if ten else ''}-{y}-{borrow}={value + 10 * ten}"
        lines.append((work, value % 10, int(ten)))
        digits, borrow = str(value % 10) + digits, int(ten)
    head = f"{top}-{bottom}"
    turbo = f"{head} = {digits[::-1]}"
    return (*full(head, lines, digits, "borrow"), turbo, turbo)


def product_notes(a, b):
    """b has one digit."""
    lines, carry, digits, partial = [], 0, "", []
    for x in reversed(str(a)):
        product = int(x) * b
        total = product + carry
        lines.append((f"{x}*{b}={product:02}+{carry}={total:02}", total % 10, total // 10))
        partial.append(f"{product:02}")
        digits, carry = str(total % 10) + digits, total // 10
    digits = str(carry) + digits
    head = f"{a}*{b}"
    turbo = f"{head} = {' '.join(partial)} = {digits[::-1]}"
    return (*full(head, lines, digits, "carry"), turbo, turbo)
