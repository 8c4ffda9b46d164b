<?php
// Makes the tables and some posts: php install.php FOLDER URL POSTS

[, $folder, $url, $posts] = $argv;
$_SERVER['HTTP_HOST'] = parse_url($url, PHP_URL_HOST) . ':' . parse_url($url, PHP_URL_PORT);
define('WP_INSTALLING', true);
require "$folder/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
wp_install('A blog to protect', 'admin', 'admin@example.org', true, '', 'a password for a trial');
update_option('siteurl', $url);
update_option('home', $url);
$wp_rewrite->set_permalink_structure('/%postname%/');
$wp_rewrite->flush_rules();
$text = str_repeat("<p>Of this much could be said, and in this post some of it is.</p>\n", 40);
for ($n = 1; $n <= (int) $posts; $n++) {
    wp_insert_post([
        'post_title' => "Post number $n", 'post_content' => $text, 'post_status' => 'publish',
        'post_author' => 1,
    ]);
}
