<?php
// A site with a login, as PHP sites are: session_start() on every page, PHP's own cache limiter,
// and a page that says who sees it and how often they have.

function page(string $title, string $text): void
{
    header('Content-Type: text/html; charset=utf-8');
    $filler = str_repeat("<p>All about the shop and what it sells.</p>\n", 40);
    echo "<!doctype html><title>$title</title>\n<h1>$text</h1>\n$filler";
}

// PHP itself empties the file of a session before it writes it again: who is killed in between has
// logged that visitor out. Here a session is there as a whole, before or after.
class WholeSessions extends SessionHandler
{
    public function write(string $id, string $data): bool
    {
        $file = session_save_path() . "/sess_$id";
        $new = "$file." . getmypid();
        return file_put_contents($new, $data) !== false && rename($new, $file);
    }
}
session_set_save_handler(new WholeSessions());

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/about') {  // a page without a session
    page('About', 'About us');
    return true;
}
session_start();
if ($path === '/login' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    session_regenerate_id(true);
    $_SESSION = ['name' => $_POST['name'], 'seen' => 0];
    header('Location: /account', true, 303);
    return true;
}
if ($path === '/logout' && $_SERVER['REQUEST_METHOD'] === 'POST') {
    session_destroy();
    setcookie(session_name(), '', ['expires' => 1, 'path' => '/']);
    header('Location: /account', true, 303);
    return true;
}
$name = htmlspecialchars($_SESSION['name'] ?? 'guest');
$_SESSION['seen'] = ($_SESSION['seen'] ?? 0) + 1;
page('Account', "Hello $name, visit {$_SESSION['seen']} of $path");
