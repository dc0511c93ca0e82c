// Where a script or a style did not arrive (a network that changed, a server that was replaced) there is half a page, or
// an empty one that nobody can tell from one that has nothing to show. It is loaded anew, as a person would.
{
  const AGAIN_SECONDS = 3;
  const missed = ({ target }) => {
    if (!(target instanceof HTMLScriptElement || target instanceof HTMLLinkElement)) return;
    removeEventListener("error", missed, true); // one of them is enough
    setTimeout(() => location.reload(), AGAIN_SECONDS * 1000);
    if (document.body) say();
    else addEventListener("DOMContentLoaded", say); // it failed before there was a place for words
  };
  // In a place of its own, which the scripts that did arrive have no other words for.
  const say = () => {
    const words = document.createElement("p");
    words.className = "notice";
    words.setAttribute("role", "status");
    words.textContent = "A part of the page did not arrive. Trying again …";
    document.body.prepend(words);
  };
  addEventListener("error", missed, true); // such events don't bubble
}
