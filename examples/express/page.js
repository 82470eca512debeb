'use strict'

// The page, without a template engine.  Whatever comes from outside goes through escape().

const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
const escape = text => String(text).replace(/[&<>"']/g, char => ENTITIES[char])

const list = counts => Object.entries(counts).map(([name, n]) => `${escape(name)}&nbsp;(${n})`).join(', ') || 'none'

/** What there is to say about what was saved before. */
function verdict ({ profile, saved, lost, withRyw }) {
  if (lost) return ['lost', 'Lost. A failover has cut off what you had saved. This is what is left.']
  if (!saved) return ['plain', 'Change something, and save it.']
  if (profile.version >= saved) return ['new', `New. You saved version ${saved}, and this is version ${profile.version}.`]
  const advice = withRyw ? '' : ' Reload until it is there, or switch ryw on.'
  return ['old', `Old. You saved version ${saved}, but this is version ${profile.version}.${advice}`]
}

function page (view) {
  const { id, profile, withRyw, tokens, took, counters } = view
  const saved = view.lost ? 0 : view.saved
  const address = (who, ryw, version) => {
    const query = [ryw ? '' : 'ryw=off', version ? `saved=${version}` : ''].filter(Boolean).join('&amp;')
    return `/profile/${encodeURIComponent(who)}${query && '?'}${query}`
  }
  const link = (here, href, text, name) =>
    `<a id="${name}" href="${href}"${here ? ' aria-current="true"' : ''}>${text}</a>`
  const [state, sentence] = verdict(view)

  return `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>${escape(profile.name)}'s profile</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="/style.css">
</head>
<body>
<header>
  <h1>Read your own writes</h1>
  <nav aria-label="User">
    ${link(id === '1', address(1, withRyw), 'Ann', 'user1')}
    ${link(id === '2', address(2, withRyw), 'Bob', 'user2')}
  </nav>
</header>
<main>
  <nav class="switch" aria-label="How the page is read">
    ${link(withRyw, address(id, true, saved), 'with ryw', 'on')}
    ${link(!withRyw, address(id, false, saved), 'without', 'off')}
  </nav>
  <p id="verdict" class="${state}" role="status">${sentence}</p>

  <form method="post" action="${address(id, withRyw)}" autocomplete="off">
    <h2>Profile</h2>
    <label for="name">Name</label>
    <input id="name" name="name" value="${escape(profile.name)}" maxlength="60" required>
    <label for="motto">Motto</label>
    <input id="motto" name="motto" value="${escape(profile.motto)}" maxlength="120">
    <div class="buttons">
      <button id="save">Save</button>
      ${link(false, address(id, withRyw, saved), 'Reload', 'reload')}
    </div>
  </form>

  <section>
    <h2>How this page was read</h2>
    <dl>
      <dt>Answered by</dt>
      <dd><span id="node" class="${profile.replica ? 'replica' : 'primary'}">${escape(profile.node)}</span>
        <span id="why">${profile.replica ? '' : 'no replica answered in time'}</span></dd>
      <dt>Waited</dt>
      <dd><span id="took">${took}</span> ms <small>from the question to the answer</small></dd>
      <dt>Tokens</dt>
      <dd><code id="tokens">${escape(tokens) || 'none'}</code>${withRyw || !tokens ? '' : ' <small>not looked at</small>'}</dd>
      <dt>Version</dt>
      <dd id="version">${profile.version}</dd>
    </dl>
  </section>

  <footer>
    All pages so far, by the node that answered: <span id="reads">${list(counters.reads)}</span>.
    Passed on to the next node, by the reason: <span id="fallbacks">${list(counters.fallbacks)}</span>.
  </footer>
</main>
</body>
</html>
`
}

module.exports = { page }
