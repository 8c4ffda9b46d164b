<?php
// A shop as many are: a session for everyone, pages that take a worker's time, a cart by POST.
//
// What it costs is the worker, not the processor: each request sleeps an exponential time with the
// mean $SHOP_SERVICE_MS, as a script does that waits for its database. What was asked for is
// counted by appending one octet to a file of that name, which needs no lock: its size is the count.

declare(strict_types=1);

function count_one(string $what): void
{
    file_put_contents($_SERVER['SHOP_COUNTS'] . '/' . $what, '.', FILE_APPEND);
}

function work(): void
{
    $mean_us = 1000 * (float) $_SERVER['SHOP_SERVICE_MS'];
    usleep((int) (-$mean_us * log(1 - mt_rand() / (mt_getrandmax() + 1))));
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
    $count = array_sum($_SESSION['cart']);
    echo "<!doctype html><html lang=\"en\"><title>$title</title><h1>$title</h1>\n",
        "<p>$count in the cart</p>\n", $body, "</html>\n";
}

function product(int $number): void
{
    $paragraph = "<p>Product $number is made to last, comes in five colours and has found many friends.</p>\n";
    page(
        "Product $number",
        str_repeat($paragraph, 60)
        . "<form method=\"post\" action=\"/cart/add\"><button name=\"product\" value=\"$number\">Buy</button></form>\n"
    );
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$post = $_SERVER['REQUEST_METHOD'] === 'POST';
count_one($post ? 'posts' : 'gets');
session_start();
$_SESSION['cart'] ??= [];

work();
if ($post && $path === '/cart/add') {
    $product = (int) ($_POST['product'] ?? 0);
    $_SESSION['cart'][$product] = ($_SESSION['cart'][$product] ?? 0) + 1;
    say_when_made();
    header('Location: /cart', true, 303);
} elseif (!$post && preg_match('~^/product/(\d+)$~', $path, $match)) {
    product((int) $match[1]);
} elseif (!$post && $path === '/cart') {
    page('Cart', '<p>' . implode(', ', array_keys($_SESSION['cart'])) . "</p>\n");
} else {
    http_response_code(404);
    page('Not here', '');
}
count_one('answered');
