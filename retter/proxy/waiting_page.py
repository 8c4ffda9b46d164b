"""The page for a visitor who has to wait: what is going on, and that it comes again by itself.

One file without script, picture or link, in a dozen languages, light and dark. The field `Refresh`
that goes with it loads it again, which every browser obeys (HTML standard, "shared declarative
refresh steps"); the page shows with a bar how long that takes.
"""

from typing import Final, NamedTuple

PAGE_BYTES_MAX: Final = 4096
LANGUAGES_LOOKED_AT: Final = 16  # of Accept-Language; people have three


class Wait(NamedTuple):
    """The page for a visitor who has to wait."""

    again_s: int  # whole seconds until the page loads itself again
    page: bytes
    set_cookie: str  # value of the field that gives a ticket; "" if there is none


class Words(NamedTuple):
    """The texts of the page in one language. `{}` is a number of seconds."""

    title: str
    why: str
    restart: str
    again: str
    place: str
    bar: str


WORDS: Final[dict[str, Words]] = {
    "en": Words(
        "One moment, please",
        "This site has more visitors right now than it can serve at once.",
        "This site cannot answer right now. It is probably being restarted.",
        "This page tries again by itself in about {} seconds. You do not need to do anything.",
        "Your place in the queue is kept.",
        "Waiting",
    ),
    "de": Words(
        "Einen Moment, bitte",
        "Gerade rufen mehr Menschen diese Website auf, als sie gleichzeitig bedienen kann.",
        "Diese Website kann gerade nicht antworten. Wahrscheinlich wird sie neu gestartet.",
        "Die Seite versucht es in etwa {} Sekunden von selbst noch einmal. Sie müssen nichts tun.",
        "Ihr Platz in der Warteschlange bleibt erhalten.",
        "Bitte warten",
    ),
    "fr": Words(
        "Un instant, s’il vous plaît",
        "Ce site reçoit en ce moment plus de visites qu’il ne peut en traiter à la fois.",
        "Ce site ne peut pas répondre pour le moment. Il est sans doute en train de redémarrer.",
        "La page se rechargera d’elle-même dans environ {} secondes. Vous n’avez rien à faire.",
        "Votre place dans la file d’attente est conservée.",
        "Veuillez patienter",
    ),
    "es": Words(
        "Un momento, por favor",
        "Este sitio tiene ahora mismo más visitas de las que puede atender a la vez.",
        "Este sitio no puede responder ahora mismo. Probablemente se está reiniciando.",
        "La página se recargará sola en unos {} segundos. No tiene que hacer nada.",
        "Su lugar en la cola se mantiene.",
        "Espere, por favor",
    ),
    "pt": Words(
        "Um momento, por favor",
        "Neste momento, este site tem mais visitas do que consegue atender ao mesmo tempo.",
        "Este site não consegue responder agora. Provavelmente está em reinicialização.",
        "A página será recarregada sozinha em cerca de {} segundos. Não é preciso fazer nada.",
        "O seu lugar na fila está guardado.",
        "Aguarde, por favor",
    ),
    "it": Words(
        "Un momento, per favore",
        "In questo momento il sito riceve più visite di quante ne possa gestire insieme.",
        "Il sito al momento non può rispondere. Probabilmente si sta riavviando.",
        "La pagina si ricaricherà da sola tra circa {} secondi. Non deve fare nulla.",
        "Il suo posto in coda è conservato.",
        "Attendere, prego",
    ),
    "nl": Words(
        "Een ogenblik geduld, alstublieft",
        "Deze site krijgt op dit moment meer bezoek dan hij tegelijk aankan.",
        "Deze site kan nu niet antwoorden. Waarschijnlijk wordt hij opnieuw gestart.",
        "De pagina wordt over ongeveer {} seconden vanzelf opnieuw geladen. U hoeft niets te doen.",
        "Uw plaats in de wachtrij blijft behouden.",
        "Even geduld",
    ),
    "pl": Words(
        "Proszę chwilę poczekać",
        "Strona ma teraz więcej odwiedzin, niż może obsłużyć naraz.",
        "Strona nie może teraz odpowiedzieć. Prawdopodobnie jest uruchamiana ponownie.",
        "Strona odświeży się sama za około {} s. Nie trzeba nic robić.",
        "Państwa miejsce w kolejce zostało zachowane.",
        "Proszę czekać",
    ),
    "ru": Words(
        "Пожалуйста, подождите",
        "Сейчас на сайте больше посетителей, чем он может обслужить одновременно.",
        "Сайт сейчас не может ответить. Вероятно, он перезапускается.",
        "Страница обновится сама примерно через {} с. Ничего делать не нужно.",
        "Ваше место в очереди сохраняется.",
        "Ожидание",
    ),
    "tr": Words(
        "Lütfen biraz bekleyin",
        "Siteyi şu an, aynı anda hizmet verebileceğinden daha fazla kişi ziyaret ediyor.",
        "Site şu anda yanıt veremiyor. Büyük olasılıkla yeniden başlatılıyor.",
        "Sayfa yaklaşık {} saniye içinde kendiliğinden yenilenecek. Bir şey yapmanıza gerek yok.",
        "Sıradaki yeriniz korunuyor.",
        "Bekleniyor",
    ),
    "ja": Words(
        "しばらくお待ちください",
        "現在アクセスが集中しており、ページを表示できません。",
        "サイトは現在応答できません。再起動中と思われます。",
        "約{}秒後に自動的に再読み込みします。操作は必要ありません。",
        "お待ちいただいている順番は、そのまま保たれます。",
        "待機中",
    ),
    "zh": Words(
        "请稍候",
        "当前访问人数较多，网站暂时无法处理所有请求。",
        "网站暂时无法响应，可能正在重新启动。",
        "页面将在约 {} 秒后自动刷新，您无需进行任何操作。",
        "您的排队位置已保留。",
        "正在等待",
    ),
}

_TAGS: Final = {"zh": "zh-Hans"}  # BCP 47, where the word alone does not say which script

# 7:1 of contrast at least, light and dark (WCAG 2.2, 1.4.6). Who wants no motion sees a still bar.
_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f6f6f4;"
    "color:#1c1c1c;font:1.1rem/1.5 system-ui,sans-serif}"
    "main{max-width:32rem;padding:2rem}"
    "h1{font-size:1.6rem;line-height:1.25;margin:0 0 1rem}"
    "p{margin:0 0 1rem}"
    "div{height:.5rem;border-radius:.25rem;background:#d8d8d4;overflow:hidden}"
    "i{display:block;height:100%;background:#0b5c8a;animation:w SECONDSs linear both}"
    "@keyframes w{from{width:0}to{width:100%}}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}div{background:#3a3a3a}"
    "i{background:#7cc4ee}}"
    "@media(prefers-reduced-motion:reduce){i{animation:none;width:50%}}"
)


def language_of(accept_language: bytes) -> str:
    """Return which of the languages a visitor likes best (RFC 9110 section 12.5.4); else English.

    Of two with the same weight, the first counts. A region (pt-BR) is read as its language.
    """
    best, weight = "en", 0.0
    for part in accept_language.decode("latin-1").lower().split(",")[:LANGUAGES_LOOKED_AT]:
        tag, _, parameters = part.partition(";")
        language = tag.strip().partition("-")[0]
        if language not in WORDS:
            continue
        quality = _quality(parameters)
        if quality > weight:
            best, weight = language, quality
    return best


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0


def waiting_page(language: str, again_s: int, *, queued: bool, restart: bool = False) -> bytes:
    """Return the page.

    Args:
        again_s: Whole seconds until it is loaded again, 2 at least: the words are plural.
        queued: A ticket goes with it, so there is a place to keep.
        restart: Not too many visitors are the reason: nobody listens at the application's address.
    """
    words = WORDS[language]
    why = words.restart if restart else words.why
    place = f"<p>{words.place}</p>\n" if queued else ""
    return (
        f'<!doctype html>\n<html lang="{_TAGS.get(language, language)}"><meta charset="utf-8">\n'
        f"<title>{words.title}</title>\n"
        '<meta name="viewport" content="width=device-width">\n'
        '<meta name="robots" content="noindex">\n'
        f"<style>{_STYLE.replace('SECONDS', str(again_s))}</style>\n"
        f'<main role="main"><h1>{words.title}</h1>\n<p>{why}</p>\n'
        f'<p role="status">{words.again.format(again_s)}</p>\n{place}'
        f'<div role="progressbar" aria-label="{words.bar}"><i></i></div></main>\n</html>\n'
    ).encode()
