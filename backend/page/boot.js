// Where a script or a style did not arrive (a network that changed, a server that was replaced) there is half a page, or
// an empty one that nobody can tell from one that has nothing to show. It is loaded anew, as a person would.
{
  const AGAIN_SECONDS = 3;
  const missed = ({ target }) => {
    if (!(target instanceof HTMLScriptElement || target instanceof HTMLLinkElement)) return;
    const notice = document.getElementById("notice");
    if (notice) notice.textContent = "A part of the page did not arrive. Trying again …";
    setTimeout(() => location.reload(), AGAIN_SECONDS * 1000);
  };
  addEventListener("error", missed, true); // such events don't bubble
}
