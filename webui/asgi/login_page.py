"""The two small pages of logging in and out; they need no script and no other file."""

from __future__ import annotations

import html

from webui.i18n import text

_STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;
display:grid;place-items:center;min-height:90vh;margin:0}form{display:grid;gap:.8rem;width:18rem}
input,button{font:inherit;padding:.5rem .7rem;border-radius:.5rem;border:1px solid #8888}
input{box-sizing:border-box;width:100%}
button{background:#2563eb;color:#fff;border:0}p{color:#dc2626;color:light-dark(#dc2626,#f87171);margin:0}a{text-align:center}"""


def login_page(language: str, note: str = "", name: str = "") -> str:
    """The login form. ``note`` says why it comes again, ``name`` what was typed."""
    said = f'<p role="alert">{html.escape(note)}</p>' if note else ""
    shown = name[:200].encode("utf-8", "replace").decode()
    typed = f' value="{html.escape(shown)}"' if name else ""
    focus = (" autofocus", "") if not name else ("", " autofocus")
    return _page(
        language,
        f"""<form method="post" action="login"><h1>InstructBLIP</h1>{said}
<label>{_say(language, "login_name")}<br><input name="name" autocomplete="username" required{typed}{focus[0]}></label>
<label>{_say(language, "login_password")}<br><input name="password" type="password"
autocomplete="current-password" required{focus[1]}></label><button>{_say(language, "login_enter")}</button></form>""",
    )


def logout_page(language: str) -> str:
    """A button that logs out, and the way back."""
    return _page(
        language,
        f"""<form method="post" action="logout"><h1>InstructBLIP</h1>
<button autofocus>{_say(language, "logout")}</button><a href="./">{_say(language, "logout_back")}</a></form>""",
    )


def _say(language: str, key: str) -> str:
    return html.escape(text(language, key))


def _page(language: str, body: str) -> str:
    return f"""<!doctype html><html lang="{language}"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>InstructBLIP</title>
<style>{_STYLE}</style>
{body}</html>"""
