<?php
// The whole WordPress through one script: files as they are, each program of WordPress by its own
// name, and everything else by index.php, as the rewriting rules of WordPress have it.

$root = getenv('WORDPRESS_FOLDER') ?: $_SERVER['WORDPRESS_FOLDER'];
$path = rawurldecode(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/');
$file = realpath($root . $path);
if ($file !== false && is_dir($file)) {
    $file = realpath("$file/index.php");
}
if ($file === false || !is_file($file) || strncmp($file, "$root/", strlen($root) + 1) !== 0) {
    $file = "$root/index.php";
}
$kinds = [
    'css' => 'text/css', 'js' => 'text/javascript', 'svg' => 'image/svg+xml', 'png' => 'image/png',
    'jpg' => 'image/jpeg', 'gif' => 'image/gif', 'woff2' => 'font/woff2', 'txt' => 'text/plain',
];
$kind = pathinfo($file, PATHINFO_EXTENSION);
if (isset($kinds[$kind])) {
    header("Content-Type: $kinds[$kind]");
    header('Cache-Control: max-age=86400');
    readfile($file);
    return;
}
$_SERVER['SCRIPT_FILENAME'] = $file;
$_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = substr($file, strlen($root));
chdir(dirname($file));
require $file;
