<?php
// A blog as many are: one connection to the database for a whole request, a front page with the
// newest articles, an article with its comments, comments by POST.
//
// A page takes its time in the database: a query sleeps around $BLOG_QUERY_MS (from two thirds to four
// thirds of it), as one does that reads more than fits in memory, and costs no processor. Without a connection there is no
// page. What a visitor is told then is the site's choice, written in the file $BLOG_FOLDER/errors:
//
//   status     a 500 with WordPress's words (the default)
//   disguised  the same trouble as a 200 with one line of text
//   fatal      nobody catches the exception, and PHP shows it, as a 200 (display_errors is on)
//   lenient    after a second without an answer of the database the page comes without articles

declare(strict_types=1);

mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$errors = trim((string) @file_get_contents($_SERVER['BLOG_FOLDER'] . '/errors')) ?: 'status';
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$post = $_SERVER['REQUEST_METHOD'] === 'POST';

function connect(string $errors): mysqli
{
    $db = new mysqli('localhost', 'blog', '', 'blog', 0, $_SERVER['BLOG_FOLDER'] . '/data/db.sock');
    if ($errors === 'lenient') {
        $db->query('SET SESSION lock_wait_timeout = 1');
    }
    return $db;
}

function work(mysqli $db): void
{
    $db->execute_query('SELECT SLEEP(? * (2 + 2 * RAND()) / 3)', [(float) $_SERVER['BLOG_QUERY_MS'] / 1000]);
}

// The wall clock in milliseconds, from which a reader can tell a stored page from a fresh one.
function say_when_made(): void
{
    header('X-Gen: ' . (int) floor(1000 * microtime(true)));
}

function page(string $title, string $body): void
{
    say_when_made();
    header('Content-Type: text/html; charset=utf-8');
    echo "<!doctype html><html lang=\"en\"><title>$title</title><h1>$title</h1>\n$body</html>\n";
}

function no_database(string $errors): void
{
    if ($errors === 'disguised') {
        say_when_made();
        header('Content-Type: text/html; charset=utf-8');
        echo "DB error: too many connections\n";
        return;
    }
    http_response_code(500);
    page('Database Error', "<p>Error establishing a database connection</p>\n");
}

function article(mysqli $db, int $number): void
{
    $found = $db->execute_query('SELECT title, body FROM articles WHERE id = ?', [$number])->fetch_assoc();
    if ($found === null) {
        http_response_code(404);
        page('Not found', '');
        return;
    }
    $comments = $db->execute_query(
        'SELECT author, text FROM comments WHERE article = ? ORDER BY id DESC LIMIT 20', [$number]
    );
    $list = '';
    foreach ($comments as $comment) {
        $list .= '<li>' . htmlspecialchars("{$comment['author']}: {$comment['text']}") . "</li>\n";
    }
    page($found['title'], "{$found['body']}<ul>\n$list</ul>\n");
}

function front(mysqli $db, string $errors): void
{
    $list = '';
    try {
        foreach ($db->query('SELECT id, title, body FROM articles ORDER BY id DESC LIMIT 10') as $article) {
            $list .= "<h2><a href=\"/article/{$article['id']}\">{$article['title']}</a></h2>\n"
                . substr($article['body'], 0, 400) . "\n";
        }
    } catch (mysqli_sql_exception $error) {
        if ($errors !== 'lenient') {
            throw $error;
        }
    }
    page('The Blog', $list);
}

function comment(mysqli $db): void
{
    $db->execute_query(
        'INSERT INTO comments (article, author, text) VALUES (?, ?, ?)',
        [(int) ($_POST['article'] ?? 1), substr($_POST['author'] ?? '', 0, 40), substr($_POST['text'] ?? '', 0, 1000)]
    );
    say_when_made();
    header('Location: /article/' . (int) ($_POST['article'] ?? 1), true, 303);
}

function respond(string $path, bool $post, string $errors): void
{
    $db = connect($errors);
    work($db);
    if ($post && $path === '/comment') {
        comment($db);
    } elseif (!$post && $path === '/') {
        front($db, $errors);
    } elseif (!$post && preg_match('~^/article/(\d{1,9})$~', $path, $match)) {
        article($db, (int) $match[1]);
    } else {
        http_response_code(404);
        page('Not found', '');
    }
}

if ($errors === 'fatal') {
    respond($path, $post, $errors);
} else {
    try {
        respond($path, $post, $errors);
    } catch (mysqli_sql_exception) {
        no_database($errors);
    }
}
