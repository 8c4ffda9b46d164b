"""The HTML of the knobs page: the condition of the application, its buttons and its figures."""

from html import escape
from typing import Final

from retter.demo.knobs import Condition, Knobs, Model

# Each button changes one or more knobs.
CONDITIONS: Final = (
    ("healthy", "Healthy", {"condition": "healthy"}),
    ("slow", "Slow (x10)", {"condition": "slow"}),
    ("failing", "Failing (all 500)", {"condition": "failing", "failing_share": "1"}),
    ("hung", "Hung", {"condition": "hung"}),
    ("dead", "Dead for 10 s", {"condition": "dead", "dead_for_s": "10"}),
)

_CSS: Final = (
    "body{margin:0 auto;max-width:46rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;"
    "color:#223;background:#f6f4ef}button{font:inherit;margin:.2rem;padding:.5rem .9rem;border:0;"
    "border-radius:.4rem;background:#20343c;color:#fff;cursor:pointer}button.on{background:#0b6e63;"
    "outline:3px solid #e0a92e}form{display:inline}label{display:block;margin:.5rem 0}"
    "input,select{font:inherit;padding:.3rem .5rem;width:9rem;box-sizing:border-box}"
    "#figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.5rem}"
    "#figures div{background:#fff;border-radius:.4rem;padding:.4rem .7rem}#figures b{display:block;"
    "font-size:1.3rem;font-variant-numeric:tabular-nums}"
)

_FIGURES_SCRIPT: Final = """\
<script>
const box = document.getElementById("figures");
async function look() {
  try {
    const stats = await (await fetch("/stats.json", {cache: "no-store"})).json();
    box.replaceChildren(...Object.entries(stats).filter(([, v]) => typeof v === "number").map(
      ([name, value]) => {
        const cell = document.createElement("div"), figure = document.createElement("b");
        figure.textContent = Number.isInteger(value) ? value : value.toFixed(1);
        cell.append(figure, name.replaceAll("_", " "));
        return cell;
      }));
  } catch { box.textContent = "no answer: the application is dead"; }
}
look(); setInterval(look, 1000);
</script>
"""


def knobs_page(knobs: Knobs) -> bytes:
    """Return the page with the present knobs."""
    buttons = "".join(_button(*button, on=knobs.condition) for button in CONDITIONS)
    models = "".join(
        f"<option{' selected' if model is knobs.model else ''}>{model}</option>" for model in Model
    )
    backlog = "" if knobs.backlog is None else str(knobs.backlog)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Knobs</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_CSS}</style></head><body><h1>The application is {knobs.condition}</h1>"
        f"<p>{buttons}</p>"
        '<form method="post" action="/knobs">'
        f"{_input('connections', str(knobs.connections), 'database connections')}"
        f"{_input('service_ms', f'{knobs.service_ms:g}', 'milliseconds a query')}"
        f'<label><select name="model">{models}</select> how they vary</label>'
        f"{_input('backlog', backlog, 'pages that may wait (empty: all)')}"
        "<button>Set</button></form>"
        '<h2>What it does</h2><div id="figures"></div>'
        "<p>The same as JSON: <a href=/knobs.json>/knobs.json</a> (POST changes), "
        "<a href=/stats.json>/stats.json</a> (POST starts counting anew).</p>"
        f"{_FIGURES_SCRIPT}</body></html>"
    ).encode()


def _button(name: str, label: str, turns: dict[str, str], *, on: Condition) -> str:
    hidden = "".join(f'<input type="hidden" name="{k}" value="{v}">' for k, v in turns.items())
    lit = ' class="on"' if name == on else ""
    return f'<form method="post" action="/knobs">{hidden}<button{lit}>{label}</button></form>'


def _input(name: str, value: str, label: str) -> str:
    return f'<label><input name="{name}" value="{escape(value)}"> {label}</label>'
